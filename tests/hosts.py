"""Several hosts in one process: each has a root of workspaces, a git remote is between them.

hosts.on("two")                     # from now on this process works there
at_work.build("write a.txt: a")     # a scripted agent writes the file
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from config.settings import settings
from db.core import ledger_settings
from dev.agents.scripted import scripted
from tests.running import AtWork, P
from worker.agent import Request, Turn


def writes(request: Request, **more: Any) -> Turn:
    """A scripted agent that does what the lines `write NAME: TEXT` and `remove NAME` say."""
    for line in request.prompt.splitlines():
        what, _, rest = line.partition(" ")
        name, _, text = rest.partition(": ")
        if what == "write":
            (request.cwd / name).write_text(text)
        elif what == "remove":
            (request.cwd / name).unlink()
    return scripted()(request, **more)


@dataclass
class Hosts:
    """Hosts that share Postgres, Redis and a directory of remote repositories."""

    at_work: AtWork
    remote: Path

    def on(self, name: str) -> Path:
        """Work on the host of that name from now on; the project's workspace there."""
        self.at_work.configure(BATON_WORKSPACES=str(self.remote.with_name(name)))
        ledger_settings.tell(self.at_work.conn)  # as its worker does when it starts
        return self.at_work.place

    def sent(self) -> set[str]:
        """The commits that the remote has refs of."""
        return set(git(self.remote / f"{P}.git", "for-each-ref", "--format=%(objectname)"))

    def away(self, away: bool = True) -> None:
        here, there = self.remote, self.remote.with_name("unmounted")
        if away:
            here.rename(there)
        else:
            there.rename(here)


@pytest.fixture
def hosts(at_work: AtWork, tmp_path: Path) -> Hosts:
    remote = tmp_path / "remote"
    remote.mkdir()
    at_work.agent = writes
    at_work.configure(BATON_WORKSPACE_REMOTE=f"file://{remote}/{{project}}.git")
    found = Hosts(at_work, remote)
    found.on("one")
    return found


def git(repository: Path, *arguments: str) -> list[str]:
    told = subprocess.run(
        ["git", f"--git-dir={repository}", *arguments], capture_output=True, check=True
    )
    return told.stdout.decode().splitlines()


def files(place: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in place.iterdir() if path.is_file()}


def kept(ref: str) -> dict[str, str]:
    """The files that this host keeps under a ref."""
    repository = settings().workspaces / ".trees" / f"{P}.git"
    names = git(repository, "ls-tree", "-r", "--name-only", ref)
    return {name: "\n".join(git(repository, "show", f"{ref}:{name}")) for name in names}


def aside(at_work: AtWork) -> list[str]:
    return [body["ref"] for body in at_work.events("workspace.kept_aside")]


def trees(at_work: AtWork) -> list[str | None]:
    """The tree of each move of the head, and last the project's."""
    moved = at_work.rows("select tree from session_transitions order by id")
    return [tree for (tree,) in (*moved, *at_work.rows("select workspace_tree from projects"))]
