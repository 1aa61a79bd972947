"""A project's workspace: a directory at a stable path, each version of it a git commit.

The repository lies beside the workspaces, never inside one: its configuration, hooks
and index are ours, and nothing that an agent writes can run here. An attempt begins on
what the last whole turn left, with whatever people changed since; what a lost attempt
left is kept aside under a ref, and the workspace goes back to where that one began.

    refs/baton/head            the workspace as the last whole turn left it
    refs/baton/begun/<attempt> the workspace as a running attempt found it
    refs/baton/made/<attempt>  what its turn made of it, until that is known to be committed
    refs/baton/lost/<attempt>  what an attempt that came to nothing had made of it
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from config.settings import settings
from db.attempts import Claimed
from worker import points
from worker.errors import BadRequest
from worker.plain import plain
from worker.trees import Trees

OURS = ".trees"  # below the root of workspaces: the repositories


@dataclass(frozen=True, slots=True)
class Begun:
    """The workspace as an attempt found it, and what was kept aside of a lost one."""

    path: Path
    attempt: UUID
    commit: str
    kept_aside: str | None = None  # a ref
    went_on: bool = False  # whether the files are those of the attempt to go on from


def place(job: Claimed) -> Path:
    """Where the job's project has its workspace. Raises BadRequest if that is not allowed."""
    path = Path(job.workspace) if job.workspace else settings().workspaces / job.project_id
    check_place(path)
    if path.exists() and not path.is_dir():
        raise BadRequest(f"The workspace {path} is not a directory: move the file away.")
    return path


def check_place(path: Path) -> None:
    """Raises BadRequest unless the path is an absolute one below BATON_WORKSPACES."""
    root = settings().workspaces
    if not path.is_absolute():
        raise BadRequest(f"The workspace {path} is not an absolute path.")
    inside = path.resolve().is_relative_to(root.resolve()) and path.resolve() != root.resolve()
    if not inside or path.resolve().is_relative_to((root / OURS).resolve()):
        raise BadRequest(
            f"The workspace {path} is outside {root}: choose a directory in there."
        )


def provide(job: Claimed) -> Path:
    """The job's workspace, made or brought back if it is missing. Raises BadRequest."""
    path = place(job)
    path.mkdir(parents=True, exist_ok=True)
    trees = _trees(job, path)
    if trees.exist() and not any(path.iterdir()) and trees.ref(HEAD):
        trees.restore(HEAD)  # the directory was lost: a turn that empties it is the head itself
    return path


def begin(
    job: Claimed, path: Path, *, committed: Callable[[str], bool], after: UUID | None = None
) -> Begun:
    """Make the workspace ready for an attempt that will write it.

    `committed` tells whether a version has this commit as its tree: a worker may have died
    between the ledger's commit and `settle`. `after` is the attempt to go on from: if it
    worked here, its files stay.
    """
    trees = _trees(job, path)
    trees.create()
    _catch_up(trees, committed)
    if after and (commit := trees.ref(f"{BEGUN}/{after}")):
        _begin_only(trees, job, commit)
        return Begun(path=path, attempt=job.attempt, commit=commit, went_on=True)
    kept_aside = _put_lost_aside(trees)
    commit = trees.snapshot("as found", parent=trees.ref(HEAD))
    trees.point(f"{BEGUN}/{job.attempt}", commit)
    return Begun(path=path, attempt=job.attempt, commit=commit, kept_aside=kept_aside)


def go_back(job: Claimed, begun: Begun) -> str | None:
    """Back to where the attempt began; what it left is kept aside under the ref returned."""
    trees = _trees(job, begun.path)
    kept_aside = _put_lost_aside(trees)
    trees.point(f"{BEGUN}/{job.attempt}", begun.commit)
    return kept_aside


def finish(job: Claimed, begun: Begun) -> tuple[str, list[str]]:
    """The workspace as the turn left it: its commit, and the files that the turn created."""
    trees = _trees(job, begun.path)
    commit = trees.snapshot(f"{job.kind} {job.id}", parent=trees.ref(HEAD))
    trees.point(f"{MADE}/{begun.attempt}", commit)
    points.reach("tree.made")
    return commit, [plain(name) for name in trees.added(begun.commit, commit)]


def settle(job: Claimed, begun: Begun, commit: str) -> None:
    """The turn was committed: its tree is what the next attempt begins on."""
    _settle(_trees(job, begun.path), str(begun.attempt), commit)
    points.reach("workspace.settled")


def files(path: Path, limit: int = 200) -> list[str]:
    """Paths of the workspace's files, for people and for a digest; hidden ones left out."""
    found: list[str] = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(d for d in folders if not d.startswith(".") and d != "node_modules")
        base = Path(folder).relative_to(path)
        shown = sorted(name for name in names if not name.startswith("."))
        found += [plain(str(base / name)).replace("\n", " ") for name in shown]
        if len(found) >= limit:
            break
    return found[:limit]


def read(path: Path, name: str, limit: int = 10_000) -> str:
    """The beginning of a file of the workspace as text; empty unless it is a plain file there."""
    file = path / name
    if file.is_symlink() or not file.is_file():
        return ""
    with file.open(errors="replace") as opened:
        return plain(opened.read(limit))


HEAD = "refs/baton/head"
BEGUN = "refs/baton/begun"
MADE = "refs/baton/made"
LOST = "refs/baton/lost"


def _trees(job: Claimed, path: Path) -> Trees:
    return Trees(settings().workspaces / OURS / f"{job.project_id}.git", path)


def _settle(trees: Trees, attempt: str, commit: str) -> None:
    trees.point(HEAD, commit)
    trees.forget(f"{BEGUN}/{attempt}")
    trees.forget(f"{MADE}/{attempt}")


def _begin_only(trees: Trees, job: Claimed, commit: str) -> None:
    """This attempt began where that commit was, and no other did."""
    for ref in trees.refs(BEGUN):
        trees.forget(ref)
    trees.point(f"{BEGUN}/{job.attempt}", commit)


def _catch_up(trees: Trees, committed: Callable[[str], bool]) -> None:
    """Settle what the ledger has, and its worker did not live to settle."""
    for ref in trees.refs(MADE):
        commit = trees.ref(ref)
        if commit and committed(commit):
            _settle(trees, ref.rpartition("/")[2], commit)
        else:
            trees.forget(ref)


def _put_lost_aside(trees: Trees) -> str | None:
    """An attempt began here and never came to a commit: keep its leftovers, go back."""
    begun = trees.refs(BEGUN)
    if not begun:
        return None
    lost_ref = f"{LOST}/{begun[0].rpartition('/')[2]}"
    left = trees.snapshot("left by an attempt that came to nothing", parent=trees.ref(HEAD))
    same = trees.same(begun[0], left)
    if not same:
        trees.point(lost_ref, left)
        trees.restore(begun[0])
    for ref in begun:
        trees.forget(ref)
    return None if same else lost_ref
