"""How a project's tree reaches a host.

    shared   (as it is without a setting) every host has the same BATON_WORKSPACES, with the
             repositories in it: nothing is carried
    remote   each project has a git repository at BATON_WORKSPACE_REMOTE: what a turn made
             is there before the ledger names it, under a ref of its attempt

Which commit is wanted, the ledger says; no ref of another host is ever believed.

    refs/baton/made/<attempt>  in the remote: what the attempt's turn made. It stays, for
                               whoever goes back to it, unless the attempt came to nothing
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit

from config.settings import settings
from worker.failures.errors import (
    EXHAUSTED,
    RemoteMissing,
    RemoteRefuses,
    WorkspaceAway,
    WorkspaceFailed,
)
from worker.workspace.refs import HEAD, MADE
from worker.workspace.trees import Kept, Trees

PROJECT = "{project}"
PATIENCE = 30.0  # seconds to list what is there
AT_ONCE = 200  # refs removed in one push


class Transport(Protocol):
    """The way between this host's repository of a project and all other hosts'."""

    def fetch(self, trees: Trees, commit: str) -> bool:
        """Bring the commit into this host's repository. Raises WorkspaceAway if it cannot be had.

        False: there is nothing to bring, the directory is to be taken as it lies.
        """
        ...

    def send(self, trees: Trees, name: str, commit: str) -> None:
        """Let every host fetch the commit, from now on. Raises WorkspaceAway, and
        RemoteRefuses where it is for some of the files."""
        ...

    def forget(self, trees: Trees, names: Collection[str]) -> None:
        """What was sent under these names came to nothing. Raises WorkspaceAway."""
        ...

    def sent(self, trees: Trees) -> dict[str, str]:
        """What can be forgotten: each name, and its commit. Raises WorkspaceAway."""
        ...


def transport(project_id: str) -> Transport:
    """The way that the settings say."""
    url = address(project_id)
    return Remote(project_id, url) if url else Shared(project_id)


def place(project_id: str) -> Path | None:
    """The directory of this host that is the project's remote repository, if one is."""
    url = urlsplit(address(project_id))
    return Path(unquote(url.path)) if url.scheme == "file" else None


def folder() -> Path | None:
    """The directory of this host that holds the remote repositories, if one does."""
    url = urlsplit(settings().workspace_remote.get_secret_value())
    if url.scheme != "file":
        return None
    before = unquote(url.path.partition(PROJECT)[0])
    return Path(before if before.endswith("/") else str(Path(before).parent))


def address(project_id: str) -> str:
    """The URL of the project's remote repository; empty where there is none."""
    url = settings().workspace_remote.get_secret_value()
    return url.replace(PROJECT, quote(project_id, safe=""))


def send(
    trees: Trees,
    project_id: str,
    name: str,
    kept: Kept,
    *,
    parent: str | None,
    note: Callable[[str], None],
) -> Kept:
    """Let every host fetch the commit, without the files that the other repository refuses:
    returns what was sent, after `note` was told of its commit. Raises WorkspaceAway."""
    way = transport(project_id)
    while True:
        note(kept.commit)
        try:
            way.send(trees, name, kept.commit)
        except RemoteRefuses as exc:
            less = trees.without(kept, exc.objects, parent=parent)
            if less.left_out == kept.left_out:  # it is something of before
                raise
            kept = less
        else:
            return kept


def remove(trees: Trees, url: str, refs: Sequence[str]) -> None:
    """Remove refs of another repository, all of them there. Raises WorkspaceAway."""
    for start in range(0, len(refs), AT_ONCE):
        trees.push(url, *(f":{ref}" for ref in refs[start : start + AT_ONCE]))


@dataclass(frozen=True, slots=True)
class Shared:
    """What is not here is nowhere."""

    project_id: str

    def fetch(self, trees: Trees, commit: str) -> bool:
        """Where the repository was lost and files are there, these are the project's."""
        if trees.ref(HEAD) is None and any(trees.path.iterdir()):
            return False
        raise WorkspaceAway(
            f"The files of project {self.project_id} (commit {commit[:12]}) are not on this"
            " host: let its jobs run where they are, share BATON_WORKSPACES, or set"
            " BATON_WORKSPACE_REMOTE; if they are lost, put what there is into"
            f" {trees.path}, or `baton project {self.project_id} --rewind` to a session"
            " whose files are here."
        )

    def send(self, trees: Trees, name: str, commit: str) -> None:
        """Every host has it."""

    def forget(self, trees: Trees, names: Collection[str]) -> None:
        """Nothing was sent."""

    def sent(self, trees: Trees) -> dict[str, str]:  # noqa: ARG002 - the other way needs it
        """Nothing."""
        return {}


@dataclass(frozen=True, slots=True)
class Remote:
    """A git repository of the project, that every host reaches at `url`."""

    project_id: str
    url: str

    def fetch(self, trees: Trees, commit: str) -> bool:
        """By the commit's id: its ref is in the remote, whatever its name."""
        try:
            trees.fetch(self.url, commit)
        except WorkspaceAway as exc:
            raise WorkspaceAway(
                f"The files of project {self.project_id} (commit {commit[:12]}) cannot be"
                f" fetched from BATON_WORKSPACE_REMOTE ({exc}): its jobs wait until they can."
            ) from exc
        return True

    def send(self, trees: Trees, name: str, commit: str) -> None:
        """Under a name of its own, so that no other's is ever moved."""
        try:
            self._provide()
            trees.push(self.url, f"+{commit}:{MADE}/{name}")
        except (WorkspaceAway, WorkspaceFailed, OSError) as exc:
            if isinstance(exc, OSError) and exc.errno in EXHAUSTED:
                raise  # it is this host that has nothing left
            text = (
                f"The files of project {self.project_id} cannot be sent to"
                f" BATON_WORKSPACE_REMOTE ({exc}): nothing is committed until they can."
            )
            if isinstance(exc, RemoteRefuses):
                raise RemoteRefuses(text, exc.objects) from exc
            raise WorkspaceAway(text) from exc

    def forget(self, trees: Trees, names: Collection[str]) -> None:
        """Those that are there."""
        if refs := [f"{MADE}/{name}" for name in names]:
            remove(trees, self.url, list(trees.refs_of(self.url, refs)))

    def sent(self, trees: Trees) -> dict[str, str]:
        """Nothing, where there is no repository."""
        try:
            found = trees.refs_of(self.url, [f"{MADE}/*"], within=PATIENCE)
        except RemoteMissing:
            return {}
        return {ref.removeprefix(f"{MADE}/"): commit for ref, commit in found.items()}

    def _provide(self) -> None:
        """Below a directory that is there, a repository is made; elsewhere its server does."""
        url = urlsplit(self.url)
        place = Path(unquote(url.path))
        theirs = Trees(place, place.parent)
        if url.scheme == "file" and place.parent.is_dir() and not theirs.exist():
            theirs.create()
