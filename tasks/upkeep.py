"""Scheduled clean-up. Beat only triggers: each run claims its period in Postgres, so two
beats do a thing once, and a tick that was missed is made up for by the next.

A run does what is due, until its share of the period is over; all tasks together take no longer
than a period. Where one stopped is written down with what it did, and the next goes on from there
(db/core/walks.py). `over` says that more was due than there was time for.

It runs in a worker's main process (worker/broker/upkeep_queue.py), which has no pool of connections.
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from psycopg import Connection

from config.settings import settings
from db.core import pool
from db.core.walks import Walk
from db.live import connections, voice
from db.operations import census, upkeep
from db.transcripts import quota
from db.transcripts.listings import Held
from worker.broker import periodic
from worker.broker.app import app
from worker.broker.publish import announce
from worker.cleanup.litter import sweep_checkpoints, sweep_directories
from worker.workspace import branch_places

LIVE_KEPT = timedelta(days=1)  # of connections that have gone
PAGE = 5_000  # of them at a time
IN_VAIN = 0.1  # of a run's time, for looking where nothing is due

Done = dict[str, Any]


def _periodic(name: str, work: Callable[[Connection, Done, Walk], Done]) -> Done | None:
    """Do the work unless this period's was done; returns what it did.

    `work` is given what the run before has written down, and the way that is to be gone.
    """
    with pool.connect() as conn:
        if not upkeep.claim_tick(conn, name, settings().upkeep_every):
            return None
        before = upkeep.noted(conn, name)
        share = settings().upkeep_every.total_seconds() / len(periodic.NAMES)
        walk = Walk(before.get("after"), time.monotonic() + share, share * IN_VAIN)
        done = work(conn, before, walk)
        done |= {"after": walk.after} if walk.after else {}
        done |= {"over": True} if walk.over else {}
        upkeep.end_tick(conn, name, done)
    return done


@app.task(name="tasks.upkeep.mark_stale")
def mark_stale() -> None:
    """Sessions too old to resume are marked so (24 h)."""

    def work(conn: Connection, _: Done, walk: Walk) -> Done:
        return {"stale": upkeep.mark_stale(conn, settings().stale_after, walk)}

    _periodic("mark_stale", work)


@app.task(name="tasks.upkeep.archive_transitions")
def archive_transitions() -> None:
    """Old transitions go to the archive (30 d); the newest per project and version stay."""

    def work(conn: Connection, _: Done, walk: Walk) -> Done:
        return {"archived": upkeep.archive_transitions(conn, settings().archive_after, walk)}

    _periodic("archive_transitions", work)


@app.task(name="tasks.upkeep.drop_branches")
def drop_branches() -> None:
    """Branches that nobody has used go after their time (30 d), those of races that are over at once."""

    def work(conn: Connection, _: Done, walk: Walk) -> Done:
        dropped = upkeep.drop_branches(conn, settings().branches_kept, walk)
        for one in dropped:
            announce(one.project_id, one.told, [])
        return {"dropped": len(dropped)}

    _periodic("drop_branches", work)


@app.task(name="tasks.upkeep.prune_transcripts")
def prune_transcripts() -> None:
    """Transcripts that no head and no kept version reaches go after their time, and before
    it where a project has more than it may. What there is of them is counted on the way."""

    def work(conn: Connection, before: Done, walk: Walk) -> Done:
        so_far, for_size, over = before.get("so_far") or census.NO_TRANSCRIPTS, 0, 0

        def then(held: list[Held]) -> int:
            nonlocal so_far, for_size, over
            so_far = census.add_transcripts(so_far, held)
            pruned, above = prune_to_size(conn, held)
            for_size, over = for_size + pruned, over + above
            return pruned

        gone = upkeep.prune_transcripts(conn, settings().transcripts_kept, walk, then)
        done = {"pruned": gone, **census.transcripts_noted(conn, before, so_far, walk)}
        if settings().project_bytes:
            done |= {"pruned_for_size": for_size, "projects_over": over}
        return done

    _periodic("prune_transcripts", work)


def prune_to_size(conn: Connection, held: list[Held]) -> tuple[int, int]:
    """Keep these projects below BATON_PROJECT_BYTES: how many sessions went, and how many
    projects are above it still."""
    limit = settings().project_bytes
    large = [one.project_id for one in held if limit and one.bytes > limit]
    done = quota.prune(conn, limit, large) if large else []
    for one in done:
        if one.told:
            announce(one.project_id, one.told, [])
    return sum(one.sessions for one in done), sum(one.stored > limit for one in done)


@app.task(name="tasks.upkeep.clear_jobs")
def clear_jobs() -> None:
    """Finished jobs with their turns, ticks and silent workers go after their time."""

    def work(conn: Connection, _: Done, walk: Walk) -> Done:
        return upkeep.clear_jobs(conn, settings().jobs_kept, walk)

    _periodic("clear_jobs", work)


@app.task(name="tasks.upkeep.census")
def count_projects() -> None:
    """Projects are counted: how old their heads are, and whether all are in step."""

    def work(conn: Connection, before: Done, walk: Walk) -> Done:
        return census.count_projects(conn, before, walk)

    _periodic("census", work)


@app.task(name="tasks.upkeep.sweep")
def sweep() -> None:
    """Litter of dead runs and of branches that ended goes from the host whose worker takes
    this, and no checkpoint is left without an end."""

    def work(conn: Connection, _: Done, walk: Walk) -> Done:
        return {
            "directories": sweep_directories(walk.until),
            "branches": branch_places.sweep(conn, walk),
            "checkpoints": sweep_checkpoints(walk.until),
            "live_connections": _pages(
                lambda: connections.sweep(conn, LIVE_KEPT, PAGE), walk.until
            ),
            "voice": _pages(lambda: voice.sweep(conn, settings().jobs_kept, PAGE), walk.until),
        }

    _periodic("sweep", work)


def _pages(page: Callable[[], int], until: float) -> int:
    """Page after page until one has nothing, or the time is over; how much was done."""
    done = some = page()
    while some and time.monotonic() < until:
        some = page()
        done += some
    return done
