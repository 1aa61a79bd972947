"""A project's workspace: a directory at a stable path, each version of it a git commit.

The repository lies beside the workspaces, never inside one: its configuration, hooks
and index are ours, and nothing that an agent writes can run here. An attempt begins on
the commit that the ledger names, with whatever people changed since on this host; what a
lost attempt left is kept aside under a ref, and the workspace goes back to where that one
began. Where the ledger names another commit than this host's last (another host worked, or
an operator went back), that one is brought here, and what lay here is kept aside. The refs:
worker/workspace/refs.py; how a commit reaches a host: worker/workspace/transport.py.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from psycopg import Connection

from config.log import log
from config.settings import asking, settings
from db.jobs.attempts import Claimed
from db.jobs.lanes import MAIN
from db.projects import projects
from db.projects.projects import Project
from worker.failures.errors import BadRequest, WorkspaceAway
from worker.process import crash_points, fence
from worker.text import file_names
from worker.text.file_names import LeftOut
from worker.workspace import measure, refs, removal, transport
from worker.workspace.trees import Trees

OURS = ".trees"  # below the root of workspaces: the repositories
LEAST_CHANGED = 4  # files; fewer are no structure
BRANCHES = ".branches"  # the directories of branches, as db.jobs.attempts.CLAIM names them


@dataclass(frozen=True, slots=True)
class AsFound:
    """The workspace as an attempt found it, and what was kept aside of a lost one."""

    path: Path
    attempt: UUID
    commit: str
    kept_aside: str | None = None  # a ref
    restructured: float = 0.0  # share of the files that others added or removed meanwhile
    went_on: bool = False  # whether the files are those of the attempt to go on from


@dataclass(frozen=True, slots=True)
class Made:
    """What a turn made of the workspace: its commit, the first of the files that it created
    and how many these are, and what is no part of the commit."""

    commit: str
    created: list[str]
    created_count: int
    left_out: list[LeftOut]


def place(job: Claimed) -> Path:
    """Where the job's project has its workspace. Raises BadRequest if that is not allowed."""
    if job.lane != MAIN and job.workspace:
        return Path(job.workspace)  # below BRANCHES: the claim says so, nobody else may
    return place_of(job.project_id, job.workspace, kept=job.tree is not None, head=job.head)


def place_of(project_id: str, workspace: str | None, *, kept: bool, head: str | None) -> Path:
    """Where a project's workspace is on this host; `workspace` and `head` as the ledger has them.

    Files lie where each host has its workspaces, so a path of another host's counts for
    nothing: that is what it is if the ledger has files of it (`kept`), or if they come through
    a remote. So does the default place in a BATON_WORKSPACES of before, if no turn was ever
    committed there. Raises BadRequest if the place is not allowed.
    """
    default = asking().workspaces / project_id
    path = Path(workspace) if workspace else default
    unused = head is None and path.is_absolute() and path.name == project_id
    inside = _inside(path)
    if not inside and (kept or unused or asking().workspace_remote):
        path = default
        inside = _inside(path)
    _check(path, inside=inside)
    return path


def check_place(path: Path) -> None:
    """Raises BadRequest unless the path is that of a directory, or none yet, below BATON_WORKSPACES."""
    _check(path, inside=_inside(path))


def _check(path: Path, *, inside: bool) -> None:
    if not path.is_absolute():
        raise BadRequest(f"The workspace {path} is not an absolute path.")
    if not inside:
        root = asking().workspaces
        raise BadRequest(
            f"The workspace {path} is outside {root}: choose a directory in there."
        )
    if is_there(path) and not path.is_dir():
        raise BadRequest(f"The workspace {path} is not a directory: move the file away.")


def is_there(path: Path) -> bool:
    """Whether this process sees something there. What no system takes for a path is not there, nor what
    lies where it may not look: a producer is not the worker."""
    return os.path.exists(path)  # noqa: PTH110 - Path's own raises for these two


def _inside(path: Path) -> bool:
    root, found = asking().workspaces.resolve(), path.resolve()
    inside = found.is_relative_to(root) and found != root
    return inside and not any(found.is_relative_to(root / name) for name in (OURS, BRANCHES))


def provide(job: Claimed, *, committed: Callable[[str], bool]) -> list[str]:
    """Bring the job's workspace to what the ledger names, and make it if it is missing.

    Returns the refs under which is kept what had to make way. `committed` tells whether the
    ledger has this commit: a worker may have died between its commit and `confirm`. Raises
    BadRequest, and WorkspaceAway, with nothing changed, if the files cannot be had.
    """
    path = place(job)
    path.mkdir(parents=True, exist_ok=True)
    removal.let_in(path)
    main, trees = _trees(job.project_id, path), _trees_of(job, path)
    commit = job.tree if job.tree and _obtain(main, job.project_id, job.tree) else None
    if job.lane != MAIN:
        main.create()
        if commit:  # kept there as long as the branch borrows it
            main.point(f"{refs.BRANCHES}/{job.lane}", commit)
        trees.create()
        trees.borrow(main.git_dir)
    if not trees.exist():
        return []  # nothing to go by yet
    with trees.held():
        lost = refs.catch_up(trees, committed)
        newest = commit or trees.ref(refs.HEAD)
        kept = refs.bring(trees, newest) if newest else []
    forget_sent(trees, job.project_id, lost)
    return kept


def _obtain(trees: Trees, project_id: str, commit: str) -> bool:
    """Have the commit in this host's repository; False: the directory is taken as it lies."""
    trees.create()
    return trees.has(commit) or transport.transport(project_id).fetch(trees, commit)


def bring_now(conn: Connection, project: Project) -> list[str] | None:
    """As `provide`, at once, for an operator; None where this host does not have the files.

    `project` is as the operator has left it, with no job running.
    """
    commit = project.workspace_tree
    try:
        place = place_of(
            project.project_id,
            project.workspace,
            kept=commit is not None,
            head=project.last_ai_session_id,
        )
    except BadRequest:
        return None  # there is none yet
    trees = _trees(project.project_id, place)
    if commit is None or not trees.git_dir.parent.is_dir():
        return None
    trees.path.mkdir(parents=True, exist_ok=True)
    removal.let_in(trees.path)
    with trees.held():
        if not trees.exist() or not trees.has(commit):
            return None
        now = projects.get(conn, project.project_id)
        if trees.ref(refs.HEAD) == commit or not now or now.workspace_tree != commit:
            return []  # a job was quicker, and may be at work in it
        lost = refs.catch_up(
            trees, lambda tree: projects.has_tree(conn, project.project_id, tree)
        )
        kept = refs.bring(trees, commit)
    forget_sent(trees, project.project_id, lost)
    return kept


def begin(job: Claimed, path: Path, *, after: UUID | None = None) -> AsFound:
    """Note the workspace as this attempt finds it, to be written by it.

    `after` is the attempt to go on from: if it worked here, its files stay. Raises
    WorkspaceTooLarge: no turn would come to a version.
    """
    trees = _trees_of(job, path)
    trees.create()
    with trees.held():
        trees.mend()
        if after and (commit := trees.ref(f"{refs.BEGUN}/{after}")):
            # Its note stays beside ours: this attempt may die as well before its turn begins.
            trees.point(f"{refs.BEGUN}/{job.attempt}", commit)
            measure.check(path)
            refs.drop_half_written(trees, commit)
            return AsFound(path=path, attempt=job.attempt, commit=commit, went_on=True)
        found = trees.pointed(refs.HEAD, refs.BEGUN)
        head = found.pop(refs.HEAD, None)
        kept_aside = refs.put_lost_aside(trees) if found else None
        measure.check(path)
        commit = trees.snapshot("as found", parent=head)
        trees.point(f"{refs.BEGUN}/{job.attempt}", commit)
        return AsFound(
            path=path,
            attempt=job.attempt,
            commit=commit,
            kept_aside=kept_aside,
            restructured=_restructured(trees, head, commit) if head else 0.0,
        )


def _restructured(trees: Trees, before: str, after: str) -> float:
    """The share of the files that came or went; what was only edited is the same structure."""
    if before == after:
        return 0.0
    came, went = trees.added(before, after), trees.added(after, before)
    changed = len(came) + len(went)
    return changed / max(len(trees.names(before)), 1) if changed >= LEAST_CHANGED else 0.0


def go_back(job: Claimed, begun: AsFound) -> str | None:
    """Back to where the attempt began; what it left is kept aside under the ref returned."""
    trees = _trees_of(job, begun.path)
    kept_aside = refs.put_lost_aside(trees)
    trees.point(f"{refs.BEGUN}/{job.attempt}", begun.commit)
    return kept_aside


def finish(job: Claimed, begun: AsFound) -> Made:
    """The workspace as the turn left it.

    Every host can have the commit then. Raises WorkspaceAway if it cannot be sent, and
    WorkspaceTooLarge: the next attempt here begins without what this one left.
    """
    measure.check(begun.path)
    trees = _trees_of(job, begun.path)
    parent = trees.ref(refs.HEAD)
    kept = trees.keep(f"{job.kind} {job.id}", parent=parent)
    main = _trees(job.project_id, begun.path)

    def note(commit: str) -> None:
        trees.point(f"{refs.MADE}/{begun.attempt}", commit)
        crash_points.reach("tree.made")
        if job.lane != MAIN:  # for whoever promotes the branch, or begins another from it
            main.fetch(str(trees.git_dir), commit)
            main.point(f"{refs.BRANCHES}/{job.lane}", commit)

    name = str(begun.attempt)
    kept = transport.send(trees, job.project_id, name, kept, parent=parent, note=note)
    created = trees.added(begun.commit, kept.commit)
    return Made(kept.commit, file_names.first_of(created), len(created), kept.left_out)


def after_check(job: Claimed, path: Path, commit: str) -> list[str]:
    """What a check has left in the workspace: files that the commit lacks are removed, unless git
    ignores them; which of the commit's own it has changed is returned, and they stay so."""
    trees = _trees_of(job, path)
    with trees.held():
        trees.mend()
        now = trees.snapshot("after a check", parent=commit)
        fence.check()
        for name in trees.added(commit, now):
            with contextlib.suppress(OSError):  # one that stays is part of the next version
                (path / name).unlink()
        return trees.touched(commit, now)


def patch_bytes(job: Claimed, path: Path, before: str, after: str) -> int:
    """How much differs between two commits: the bytes of the patch that `baton diff` would write.
    Raises WorkspaceAway."""
    trees = _trees_of(job, path)
    if not trees.has(before):
        _obtain(trees, job.project_id, before)
    return trees.patch_bytes(before, after)


def confirm(job: Claimed, begun: AsFound, commit: str, *, earlier: set[UUID]) -> None:
    """The turn was committed: its tree is what the next attempt begins on.

    What `earlier` attempts of the job have sent came to nothing.
    """
    trees = _trees_of(job, begun.path)
    refs.confirm(trees, str(begun.attempt), commit)
    crash_points.reach("workspace.confirmed")
    forget_sent(trees, job.project_id, sorted(map(str, earlier - {begun.attempt})))


def repository(project_id: str) -> Path:
    """Where this host has the project's repository, or would have it."""
    return settings().workspaces / OURS / f"{project_id}.git"


def _trees_of(job: Claimed, path: Path) -> Trees:
    """The repository of the job's lane: a branch has its own refs and index, and the main
    line's commits."""
    if job.lane == MAIN:
        return _trees(job.project_id, path)
    return Trees(branches(job.project_id) / f"{job.lane}.git", path)


def branches(project_id: str) -> Path:
    """Where this host has the repositories of the project's branches."""
    return settings().workspaces / OURS / f"{project_id}.branches"


def _trees(project_id: str, path: Path) -> Trees:
    return Trees(repository(project_id), path)


def forget_sent(trees: Trees, project_id: str, attempts: list[str]) -> None:
    """Nothing of these attempts stays elsewhere. Where that is away, it is tried again."""
    if not attempts:
        return
    try:
        transport.transport(project_id).forget(trees, attempts)
    except WorkspaceAway as exc:
        log.warning("workspace.not_forgotten", attempts=attempts, error=str(exc))
        return
    for attempt in attempts:
        trees.forget(f"{refs.MADE}/{attempt}")
