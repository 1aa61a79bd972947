"""A project's workspace: a directory at a stable path, each version of it a git commit.

The repository lies beside the workspaces, never inside one: its configuration, hooks
and index are ours, and nothing that an agent writes can run here. An attempt begins on
what the last whole turn left, with whatever people changed since; what a lost attempt
left is kept aside under a ref, and the workspace goes back to where that one began.

    refs/baton/head            the workspace as the last whole turn left it
    refs/baton/begun/<attempt> the workspace as a running attempt found it
    refs/baton/lost/<attempt>  what an attempt that came to nothing had made of it
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from config.settings import settings
from db.attempts import Claimed
from worker.errors import BadRequest

GIT_ENV = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "baton",
    "GIT_AUTHOR_EMAIL": "baton@localhost",
    "GIT_COMMITTER_NAME": "baton",
    "GIT_COMMITTER_EMAIL": "baton@localhost",
    "LC_ALL": "C",
}
GIT_TIMEOUT = 300  # seconds


@dataclass(frozen=True, slots=True)
class Begun:
    """The workspace as an attempt found it, and what was kept aside of a lost one."""

    path: Path
    attempt: UUID
    commit: str
    kept_aside: str | None  # a ref


def place(job: Claimed) -> Path:
    """Where the job's project has its workspace. Raises BadRequest if that is not allowed."""
    root = settings().workspaces
    path = Path(job.workspace) if job.workspace else root / job.project_id
    check_place(path)
    if job.workspace and path.exists() and not path.is_dir():
        raise BadRequest(f"The workspace {path} is not a directory: move the file away.")
    return path


def check_place(path: Path) -> None:
    """Raises BadRequest unless the path is an absolute one below BATON_WORKSPACES."""
    root = settings().workspaces
    if not path.is_absolute():
        raise BadRequest(f"The workspace {path} is not an absolute path.")
    if not path.resolve().is_relative_to(root.resolve()) or path.resolve() == root.resolve():
        raise BadRequest(
            f"The workspace {path} is outside {root}: choose a directory in there."
        )


def begin(job: Claimed, path: Path) -> Begun:
    """Make the workspace ready for an attempt that will write it."""
    path.mkdir(parents=True, exist_ok=True)
    repository = _repository(job.project_id)
    if not (repository / "HEAD").exists():
        repository.parent.mkdir(parents=True, exist_ok=True)
        _git(path, repository, "init", "--quiet", "--bare", str(repository), bare=True)
    kept_aside = _put_lost_aside(path, repository)
    if kept_aside is None and not any(path.iterdir()) and _ref(path, repository, HEAD):
        _restore(path, repository, HEAD)  # the directory was lost, not emptied by a turn
    commit = _snapshot(path, repository, "as found")
    _git(path, repository, "update-ref", f"{BEGUN}/{job.attempt}", commit)
    return Begun(path=path, attempt=job.attempt, commit=commit, kept_aside=kept_aside)


def finish(job: Claimed, begun: Begun) -> tuple[str, list[str]]:
    """The workspace as the turn left it: its commit, and the files that the turn created."""
    repository = _repository(job.project_id)
    commit = _snapshot(begun.path, repository, f"{job.kind} {job.id}")
    created = _git(
        begun.path,
        repository,
        "diff",
        "--name-only",
        "-z",
        "--diff-filter=A",
        begun.commit,
        commit,
    )
    return commit, [name for name in created.split("\0") if name]


def settle(job: Claimed, begun: Begun, commit: str) -> None:
    """The turn was committed: its tree is what the next attempt begins on."""
    repository = _repository(job.project_id)
    _git(begun.path, repository, "update-ref", HEAD, commit)
    _git(begun.path, repository, "update-ref", "-d", f"{BEGUN}/{begun.attempt}")


def files(path: Path, limit: int = 200) -> list[str]:
    """Paths of the workspace's files, for people and for a digest; hidden ones left out."""
    found: list[str] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(d for d in folders if not d.startswith(".") and d != "node_modules")
        base = Path(folder).relative_to(path)
        found += [str(base / name) for name in sorted(names) if not name.startswith(".")]
        if len(found) >= limit:
            break
    return found[:limit]


HEAD = "refs/baton/head"
BEGUN = "refs/baton/begun"
LOST = "refs/baton/lost"


def _repository(project_id: str) -> Path:
    return settings().workspaces / ".trees" / f"{project_id}.git"


def _put_lost_aside(path: Path, repository: Path) -> str | None:
    """An attempt began here and never came to a commit: keep its leftovers, go back."""
    begun = _git(path, repository, "for-each-ref", "--format=%(refname)", BEGUN).split()
    if not begun:
        return None
    lost_ref = f"{LOST}/{begun[0].rpartition('/')[2]}"
    left = _snapshot(path, repository, "left by an attempt that came to nothing")
    same = _git(path, repository, "diff", "--name-only", begun[0], left) == ""
    if not same:
        _git(path, repository, "update-ref", lost_ref, left)
        _restore(path, repository, begun[0])
    for ref in begun:
        _git(path, repository, "update-ref", "-d", ref)
    return None if same else lost_ref


def _snapshot(path: Path, repository: Path, message: str) -> str:
    """Commit the workspace as it is, on no branch; the commit before it when nothing changed."""
    _git(path, repository, "add", "--all", "--", ".")
    tree = _git(path, repository, "write-tree").strip()
    parent = _ref(path, repository, HEAD)
    if parent and _git(path, repository, "rev-parse", f"{parent}^{{tree}}").strip() == tree:
        return parent
    parents = ["-p", parent] if parent else []
    return _git(path, repository, "commit-tree", tree, *parents, "-m", message).strip()


def _restore(path: Path, repository: Path, commit: str) -> None:
    """Make the workspace what the commit says; files that git ignores stay."""
    _git(path, repository, "read-tree", "--reset", "-u", commit)
    _git(path, repository, "clean", "-fdq")


def _ref(path: Path, repository: Path, name: str) -> str | None:
    found = _git(path, repository, "for-each-ref", "--format=%(objectname)", name)
    return found.strip() or None


def _git(path: Path, repository: Path, *arguments: str, bare: bool = False) -> str:
    where = [] if bare else [f"--git-dir={repository}", f"--work-tree={path}"]
    safe = ["-c", "core.fsmonitor=false", "-c", "core.autocrlf=false", "-c", "gc.auto=0"]
    done = subprocess.run(
        ["git", *where, *safe, *arguments],
        cwd=path,
        env={**os.environ, **GIT_ENV},
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=GIT_TIMEOUT,
        check=False,
    )
    if done.returncode:
        raise OSError(
            f"git {arguments[0]} failed in the workspace: {done.stderr.strip()[-300:]}"
        )
    return done.stdout
