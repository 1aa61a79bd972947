"""What a host keeps of a branch, and how that goes once the branch is promoted or dropped.

.branches/<project>/<lane>            its directory
.trees/<project>.branches/<lane>.git  its repository, with a lock beside it
refs/baton/branches/<lane>            what its newest turn made, in the project's repository
refs/baton/lent/<lane>/…              what its repository borrows, there too

What people changed in the directory of a promoted branch, and what was kept aside there, stays
in the project's repository as anything that had to make way; of a dropped one nothing does.
"""

import socket
from bisect import bisect_right
from datetime import timedelta
from glob import escape
from pathlib import Path
from typing import Any

from psycopg import Connection

from config.log import log
from config.settings import settings
from db.core import events
from db.core.events import Event
from db.core.walks import Key, Walk
from db.projects import branch_files, projects
from db.projects import trees as ledger
from worker.broker.publish import announce
from worker.failures.errors import JobError
from worker.text import file_names as named
from worker.workspace import refs, removal, workspace
from worker.workspace.trees import Trees

REST = timedelta(minutes=10)  # after a lane's newest job: its worker may be at bookkeeping yet
AT_ONCE = 100  # branches that the ledger is asked about
LANE = "branch-*"  # as baton_lane names them
# Refs that go again: what only they lead to is looked at, whether the ledger names it.
PASSING = (
    *(refs.BEGUN, refs.MADE, refs.LOST, refs.ASIDE),
    *(refs.LENT, refs.KEPT),
)


def sweep(conn: Connection, walk: Walk | None = None) -> int:
    """Remove what this host has of branches that have ended; returns of how many."""
    lanes = _here()

    def page(after: Key | None) -> tuple[int, Key | None]:
        begin = bisect_right(lanes, (after[0], after[1])) if after else 0
        some = lanes[begin : begin + AT_ONCE]
        ended = branch_files.ended(conn, some, rest=REST)
        removed = sum(_removed(conn, *lane) for lane in ended)
        return removed, list(some[-1]) if begin + AT_ONCE < len(lanes) else None

    return (walk or Walk()).go(page)


def _removed(conn: Connection, project_id: str, lane: str) -> bool:
    try:
        remove(conn, project_id, lane)
    except (JobError, OSError) as exc:
        log.warning("branch.not_removed", project_id=project_id, lane=lane, error=str(exc))
        return False
    return True


def remove(conn: Connection, project_id: str, lane: str) -> list[tuple[Path, int]]:
    """Remove what this host has of a lane that no job runs in: each place, with its files.

    A commit that the ledger names stays in the project's repository, and so does what people
    changed, where the branch is promoted. Raises JobError when git cannot look at it, and OSError.
    """
    place, trees = _places(project_id, lane)
    removed: list[tuple[Path, int]] = []
    if place.exists() or trees.git_dir.exists():
        with trees.held():  # the repository goes last: what is left of it is found again
            if branch_files.promoted(conn, project_id, lane):
                _carry_over(conn, project_id, trees)
            removed = [(each, removal.remove(each)) for each in (place, trees.git_dir)]
            removal.remove(trees.git_dir.with_suffix(".lock"))
    main = _main(project_id)
    if main.exist():
        with main.held():
            _let_go(conn, project_id, lane, main)
    return [(each, files) for each, files in removed if files]


def _places(project_id: str, lane: str) -> tuple[Path, Trees]:
    place = settings().workspaces / workspace.BRANCHES / project_id / lane
    return place, Trees(workspace.branches(project_id) / f"{lane}.git", place)


def _here(project_id: str = "*") -> list[tuple[str, str]]:
    """The lanes of which this host has something, as (project, lane), in order; of one project,
    or of all."""
    of = project_id if project_id == "*" else escape(project_id)
    directories = (settings().workspaces / workspace.BRANCHES).glob(f"{of}/{LANE}")
    repositories = (settings().workspaces / workspace.OURS).glob(f"{of}.branches/{LANE}.git")
    found = {(place.parent.name, place.name) for place in directories}
    found |= {(place.parent.name[: -len(".branches")], place.stem) for place in repositories}
    return sorted(found)


def forget_ended(conn: Connection, project_id: str, main: Trees) -> int:
    """Forget the refs of lanes that have ended and of which this host has nothing else.

    Its caller is alone with the repository. Returns of how many lanes.
    """
    here = {lane for _, lane in _here(project_id)}
    found = (ref.rpartition("/")[2] for ref in main.refs(refs.BRANCHES))
    left = [(project_id, lane) for lane in found if lane not in here]
    ended = branch_files.ended(conn, left, rest=REST)
    for _, lane in ended:
        _let_go(conn, project_id, lane, main)
    return len(ended)


def _let_go(conn: Connection, project_id: str, lane: str, main: Trees) -> None:
    """Forget the branch's refs. Commits that only they led to, and the ledger names, are kept
    as upkeep keeps them."""
    branch = f"{refs.BRANCHES}/{lane}"
    if commit := main.ref(branch):
        lasting = [ref for ref in main.refs("refs") if not ref.startswith(PASSING)]
        alone = main.beyond(commit, [ref for ref in lasting if ref != branch])
        named = ledger.named_of(conn, project_id, alone)
        for each in alone:
            if each in named:
                main.point(f"{refs.KEPT}/{each}", each)
            else:
                main.forget(f"{refs.KEPT}/{each}")
    for ref in (*main.refs(branch), *main.refs(f"{refs.LENT}/{lane}")):
        main.forget(ref)


def _carry_over(conn: Connection, project_id: str, trees: Trees) -> None:
    """Let the project's repository have what no turn has made of the branch's directory."""
    main = _main(project_id)
    main.create()
    trees.path.mkdir(parents=True, exist_ok=True)
    trees.create()
    trees.borrow(main.git_dir)

    def committed(tree: str) -> bool:
        return projects.has_tree(conn, project_id, tree)

    kept = set(trees.refs(refs.LOST)) | set(trees.refs(refs.ASIDE))
    lost = refs.catch_up(trees, committed)
    ref = refs.put_lost_aside(trees)
    edits, left_out = refs.put_edits_aside(trees)
    for below in (refs.LOST, refs.ASIDE):
        main.fetch(str(trees.git_dir), f"+{below}/*:{below}/*")
    told = [_of(trees, "workspace.kept_aside", {"ref": each}) for each in (ref, edits)
            if each and each not in kept]  # fmt: skip
    if left_out:
        told.append(_of(trees, "workspace.left_out", named.told(left_out)))
    if told:
        announce(project_id, events.append(conn, project_id, told), [])
    workspace.forget_sent(trees, project_id, lost)


def _of(trees: Trees, kind: str, body: dict[str, Any]) -> Event:
    """An event of what was in the branch's directory here."""
    log.info(kind, branch=trees.git_dir.stem, **body)
    return Event(
        kind, None, {**body, "host": socket.gethostname(), "branch": trees.git_dir.stem}
    )


def _main(project_id: str) -> Trees:
    repository = workspace.repository(project_id)
    return Trees(repository, repository.parent)
