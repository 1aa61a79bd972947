"""Upkeep of the workspaces' repositories on this host: they stay small, and lose nothing that
one can go back to.

    refs       lost, aside   go when finished jobs do (BATON_JOBS_KEPT after they were first seen)
               made          confirmed or forgotten, as the project's next job would do it
               kept          what the ledger names, and head does not lead to
               branches      of those that have ended, and have nothing else here
               lent          what branches' repositories have borrowed of the project's
               (remote) made go when the ledger has not named them for a day
    objects    are packed; what no ref leads to goes when it is a day old

What is left here of projects that were deleted on another host goes too (worker/workspace/leftovers.py).

Only while no job of the project runs, and alone with its repositories; what is busy is left to
the next run. A run does what is due, for half of its period at most, those first that have waited
longest, in turns with the fullest. Every worker looks, and one of those that share a
BATON_WORKSPACES does it:

    .trees/.upkeep.lock          held by who does it; its time is that of the newest run
    <project>.git/baton-upkeep   when each ref that may go was first seen; its time: the last upkeep
"""

import fcntl
import os
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from subprocess import SubprocessError

import psycopg
from psycopg import Connection

from config.log import log
from config.settings import settings
from db.core import pool
from db.core.pool import NoDatabase
from db.projects import projects, trees
from worker.failures.errors import JobError, WorkspaceAway
from worker.process import drain
from worker.workspace import branch_places, leftovers, refs, workspace
from worker.workspace.first_seen import FirstSeen
from worker.workspace.repository import Repository
from worker.workspace.transport import transport

SHARE = 0.5  # of a period; in a run none is begun later
AT_ITS_END = 2.0  # seconds that the last of an upkeep itself may take, in the file system
OFTEN, SELDOM = 3600.0, 86400.0  # seconds from one upkeep of a repository to the next
MANY = 500  # loose objects: do not wait for SELDOM
SOME = 100  # loose objects, or
PACKS = 10  # packs, from which on packing is worth its time
UNNAMED = 86400.0  # seconds: an import sends before the ledger names it
NOTES = "baton-upkeep"
FAILURES = (JobError, OSError, ValueError, SubprocessError)  # of one: the others go on


@dataclass(frozen=True, slots=True)
class Tended:
    """What was done for a project; sizes are of all its repositories, in kB."""

    gone: int  # refs that went, here and from the remote
    packed: bool
    before: int
    after: int


def tend_for_good() -> None:
    """Do what is due, each BATON_UPKEEP_EVERY, until the worker is told to stop."""
    while True:
        drain.wait(settings().upkeep_every.total_seconds())
        if drain.draining():
            return
        try:
            run_once()
        except (NoDatabase, psycopg.Error, *FAILURES) as exc:
            log.warning("repositories.not_tended", error=str(exc))


def run_once(within: float | None = None) -> int:
    """Tend what is due, unless this period's was done; returns how many projects'. None is begun
    after `within` seconds (a share of the period), but for the first."""
    with _turn() as now:
        if now is None:
            return 0
        share = settings().upkeep_every.total_seconds() * SHARE
        until = time.monotonic() + (share if within is None else within)
        done, over = list[Tended](), 0
        with pool.connect() as conn:
            leftovers.sweep(conn, until)
            waiting = due(now)
            for number, project_id in enumerate(waiting):
                if drain.draining() or (number and time.monotonic() > until):
                    over = len(waiting) - number
                    break
                if tended := _tried(conn, project_id, now):
                    done.append(tended)
    if done or over:
        log.info(
            "repositories.tended",
            projects=len(done),
            left_over=over,  # due, and for the next run
            gone=sum(each.gone for each in done),
            freed_kb=sum(each.before - each.after for each in done),
        )
    return len(done)


def _tried(conn: Connection, project_id: str, now: float) -> Tended | None:
    try:
        return tend(conn, project_id, now=now)
    except FAILURES as exc:
        log.warning("repository.not_tended", project_id=project_id, error=str(exc))
        with suppress(OSError):
            notes = workspace.repository(project_id) / NOTES
            notes.touch()  # not the next run's as well
        return None


@contextmanager
def _turn() -> Generator[float | None]:
    """The moment by the clock that dates the files here, if this run is ours: nobody else is
    at it, and the last was a period ago; else None."""
    root = settings().workspaces / workspace.OURS
    if not root.is_dir():
        yield None
        return
    with (root / ".upkeep.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        try:
            with tempfile.TemporaryFile(dir=root) as newest:
                now = os.fstat(newest.fileno()).st_mtime
            yield now if _claimed(lock.fileno(), now) else None
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)


def _claimed(lock: int, now: float) -> bool:
    last = os.fstat(lock)
    every = settings().upkeep_every.total_seconds()
    if last.st_size and now - last.st_mtime < every / 2:  # two that wait alike differ
        return False
    os.ftruncate(lock, 0)
    os.write(lock, b"The time of this file is that of the newest upkeep.\n")
    return True


def due(now: float) -> list[str]:
    """The projects whose repositories are to be tended: in turns the one with most loose
    objects, and the one that was not for longest."""
    waits, loose = dict[str, float](), dict[str, int]()
    for project_id in leftovers.here():
        since, n = now - _tended_at(workspace.repository(project_id)), 0
        if since >= OFTEN and _changed(project_id):
            n = sum(each.loose() for each in _repositories(project_id))
        if since >= SELDOM or n >= MANY:
            waits[project_id], loose[project_id] = since, n
    fullest = sorted(loose, key=lambda each: loose[each], reverse=True)
    longest = sorted(waits, key=lambda each: waits[each], reverse=True)
    in_turns = chain.from_iterable(zip(fullest, longest, strict=True))
    return list(dict.fromkeys(in_turns))


def _tended_at(place: Path) -> float:
    """When its upkeep was last done; 0.0 if it never was."""
    try:
        return (place / NOTES).stat().st_mtime
    except OSError:
        return 0.0


def _changed(project_id: str) -> bool:
    """Whether anything was put into one of its repositories since the last upkeep: each snapshot
    writes the index anew, beside the notes. To count what is loose takes far longer than this."""
    tended = _tended_at(workspace.repository(project_id)) + AT_ITS_END
    return any(each.git_dir.stat().st_mtime > tended for each in _repositories(project_id))


def _repositories(project_id: str) -> list[Repository]:
    """The project's own on this host, and after it those of its branches."""
    root = settings().workspaces
    main = Repository(workspace.repository(project_id), root)
    lanes = sorted(workspace.branches(project_id).glob("*.git"))
    return [main, *(Repository(lane, root) for lane in lanes)]


def tend(conn: Connection, project_id: str, *, now: float) -> Tended | None:
    """Tend the project's repositories on this host; `now` as the files' times are.

    None, with nothing done, where a job or anybody else is at work in one of them, and where
    the ledger does not know the project.
    """
    repositories = _repositories(project_id)
    main, *lanes = repositories
    with ExitStack() as held:
        alone = (held.enter_context(each.held_now()) for each in repositories)
        if not all(alone) or not all(each.exist() for each in repositories):
            return None
        named = trees.named(conn, project_id)
        if named is None:
            return None
        seen = FirstSeen.read(main.git_dir / NOTES, now)
        before = _stored(repositories)
        lost = _catch_up(conn, project_id, repositories)
        gone = _let_go(repositories, seen) + _keep(main, named)
        gone += branch_places.forget_ended(conn, project_id, main)
        _take_lent(main, lanes)
        packed = _pack(repositories, gone)
        after = _stored(repositories)
    for each, attempts in lost:  # what follows may wait for a server
        workspace.forget_sent(each, project_id, attempts)
    gone += _forget_unnamed(project_id, main, named, seen)
    seen.write()
    return Tended(gone, packed, before, after)


def _catch_up(
    conn: Connection, project_id: str, repositories: list[Repository]
) -> list[tuple[Repository, list[str]]]:
    """Confirm what dead workers left; the attempts whose turns came to nothing."""

    def committed(tree: str) -> bool:
        return projects.has_tree(conn, project_id, tree)

    return [(each, refs.catch_up(each, committed)) for each in repositories]


def _let_go(repositories: list[Repository], seen: FirstSeen) -> int:
    """Forget what was set aside long ago; how many refs."""
    aside = {
        f"{each.git_dir.name}:{ref}": (each, ref)
        for each in repositories
        for below in (refs.LOST, refs.ASIDE)
        for ref in each.refs(below)
    }
    old = [aside[name] for name in seen.older(aside, settings().jobs_kept.total_seconds())]
    for each, ref in old:
        each.forget(ref)
    return len(old)


def _forget_unnamed(project_id: str, main: Repository, named: set[str], seen: FirstSeen) -> int:
    """Remove from the remote what the ledger has not named for UNNAMED; how many refs."""
    way = transport(project_id)
    try:
        sent = way.sent(main)
        unnamed = {f"remote:{name}": name for name in sent if sent[name] not in named}
        old = [unnamed[key] for key in seen.older(unnamed, UNNAMED)]
        way.forget(main, old)
    except WorkspaceAway as exc:
        log.warning("repository.remote_away", project_id=project_id, error=str(exc))
        return 0
    return len(old)


def _keep(main: Repository, named: set[str]) -> int:
    """Let a ref lead to each commit that the ledger names, and to no other; refs that went."""
    head = main.ref(refs.HEAD)
    leads = main.led_to(head) if head else set[str]()
    wanted = main.present(named) - leads
    kept = main.pointed(refs.KEPT)
    for commit in wanted - set(kept.values()):
        if main.whole(commit):
            main.point(f"{refs.KEPT}/{commit}", commit)
    old = [ref for ref, commit in kept.items() if commit not in wanted]
    for ref in old:
        main.forget(ref)
    return len(old)


def _take_lent(main: Repository, lanes: list[Repository]) -> None:
    """Have refs of all that branches' repositories need: they borrow from the main one.

    Raises WorkspaceAway when one of them is damaged: then nothing of the project is packed.
    """
    for lane in lanes:
        lane.point(refs.INDEX, lane.commit_index())
        main.take_refs(lane.git_dir, f"{refs.LENT}/{lane.git_dir.stem}")
    here = {lane.git_dir.stem for lane in lanes}
    for ref in main.refs(refs.LENT):
        if ref.removeprefix(f"{refs.LENT}/").partition("/")[0] not in here:
            main.forget(ref)


def _pack(repositories: list[Repository], gone: int) -> bool:
    """Pack where it is worth it, and prune where it is not; the main one first."""
    packed = False
    for each in repositories:
        counts = each.counts()
        lane_has = each is not repositories[0] and counts["count"] + counts["packs"]
        if gone or lane_has or counts["count"] >= SOME or counts["packs"] > PACKS:
            each.pack()
            packed = True
        elif counts["count"]:
            each.prune()
    return packed


def _stored(repositories: list[Repository]) -> int:
    counted = [each.counts() for each in repositories]
    return sum(counts["size"] + counts["size-pack"] for counts in counted)
