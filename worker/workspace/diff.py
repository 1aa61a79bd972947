"""What a version changed: its files against those of another, out of the repository.

No workspace is needed, only the repository, or the remote that it can be fetched from.
"""

from dataclasses import dataclass
from typing import IO

from psycopg import Connection

from config.settings import settings
from db.projects import projects
from db.projects.projects import Version
from worker.failures.failed import Failed
from worker.workspace import workspace
from worker.workspace.git import TIMEOUT
from worker.workspace.transport import transport
from worker.workspace.trees import EMPTY, Trees

MOST = 1000  # files that are named


@dataclass(frozen=True, slots=True)
class Change:
    """A file that differs. `status` as git has it: A, M, D, T. Lines are None where the
    file is no text."""

    path: str
    status: str
    added: int | None
    removed: int | None


@dataclass(frozen=True, slots=True)
class Diff:
    """Two versions of a project; `against` is None where the first is against nothing."""

    version: Version
    against: Version | None
    trees: Trees
    before: str
    after: str

    def pour(self, into: IO[bytes], *, within: float = TIMEOUT) -> None:
        """Write the patch, as git writes and applies it. Raises GitEnded where git itself was waited
        for longer than `within` (s)."""
        self.trees.pour_patch(self.before, self.after, into, within=within)

    def stat(self) -> str:
        """How much changed in which file, for people; the last line counts all files."""
        only = f"--stat-count={MOST}"
        return _text(self.trees.patch(self.before, self.after, "--stat=100", only))

    def changes(self) -> list[Change]:
        """Every file that differs."""
        kinds = self.trees.patch(self.before, self.after, "--name-status", "-z").split("\0")
        counts = self.trees.patch(self.before, self.after, "--numstat", "-z").split("\0")
        status = dict(zip(kinds[1::2], kinds[::2], strict=False))
        found = [line.split("\t", 2) for line in counts if line]
        return [
            Change(_text(name), status[name], _count(added), _count(removed))
            for added, removed, name in found
        ]


def diff(conn: Connection, project_id: str, version: str | None, against: str | None) -> Diff:
    """What `version` changed, the newest unless one is named, against the one before it
    unless another is named. Raises Failed."""
    known = projects.versions(conn, project_id)
    if not known:
        raise Failed(f"Project {project_id} has no version yet: build it, or import its files.")
    at = _find(project_id, known, version) if version else 0
    if against:
        other: Version | None = known[_find(project_id, known, against)]
    else:
        other = known[at + 1] if at + 1 < len(known) else None
    repository = workspace.repository(project_id)
    repository.parent.mkdir(parents=True, exist_ok=True)
    trees = Trees(repository, repository.parent)
    before = _obtained(trees, other) if other else EMPTY
    return Diff(known[at], other, trees, before, _obtained(trees, known[at]))


def _find(project_id: str, known: list[Version], version: str) -> int:
    for at, one in enumerate(known):
        if one.version_id == version:
            return at
    names = ", ".join(one.version_id for one in known[:3])
    raise Failed(f"Project {project_id} has no version {version}: its newest are {names}.")


def _obtained(trees: Trees, version: Version) -> str:
    if version.tree is None:
        raise Failed(f"No files were kept of version {version.version_id}: choose another.")
    if trees.exist() and trees.has(version.tree):
        return version.tree
    if not settings().workspace_remote:
        raise Failed(
            f"The files of version {version.version_id} are not on this host: ask on one that"
            " has them, or set BATON_WORKSPACE_REMOTE."
        )
    trees.create()
    transport(version.project_id).fetch(trees, version.tree)
    return version.tree


def _bytes(told: str) -> bytes:
    return told.encode(errors="surrogateescape")


def _text(told: str) -> str:
    return _bytes(told).decode(errors="replace")


def _count(told: str) -> int | None:
    return int(told) if told.isdecimal() else None
