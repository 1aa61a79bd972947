"""Scheduled clean-up. Beat only triggers: each run claims its period in Postgres, so two
beats do a thing once, and a tick that was missed is made up for by the next.

It runs in a worker's main process (worker/aside.py), which has no pool of connections."""

from collections.abc import Callable
from typing import Any

from psycopg import Connection

from config.settings import settings
from db import pool, transcript_limit, upkeep
from worker import branch_places
from worker.app import app
from worker.litter import sweep_checkpoints, sweep_directories
from worker.publish import announce


def _periodic(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
    """Do the work unless this period's was done; returns what it did."""
    with pool.connect() as conn:
        if not upkeep.claim_tick(conn, name, settings().upkeep_every):
            return None
    done = work()
    with pool.connect() as conn:
        upkeep.end_tick(conn, name, done)
    return done


@app.task(name="tasks.upkeep.mark_stale")
def mark_stale() -> None:
    """Sessions too old to resume are marked so (24 h)."""

    def work() -> dict[str, Any]:
        with pool.connect() as conn:
            return {"stale": upkeep.mark_stale(conn, settings().stale_after)}

    _periodic("mark_stale", work)


@app.task(name="tasks.upkeep.archive_transitions")
def archive_transitions() -> None:
    """Old transitions go to the archive (30 d); the newest per project and version stay."""

    def work() -> dict[str, Any]:
        with pool.connect() as conn:
            return {"archived": upkeep.archive_transitions(conn, settings().archive_after)}

    _periodic("archive_transitions", work)


@app.task(name="tasks.upkeep.drop_branches")
def drop_branches() -> None:
    """Branches that nobody has used go after their time (30 d)."""

    def work() -> dict[str, Any]:
        with pool.connect() as conn:
            dropped = upkeep.drop_branches(conn, settings().branches_kept)
        for one in dropped:
            announce(one.project_id, one.seq, [one.told], [])
        return {"dropped": len(dropped)}

    _periodic("drop_branches", work)


@app.task(name="tasks.upkeep.prune_transcripts")
def prune_transcripts() -> None:
    """Transcripts that no head and no kept version reaches go after their time, and before
    it where a project has more than it may."""

    def work() -> dict[str, Any]:
        with pool.connect() as conn:
            done = {"pruned": upkeep.prune_transcripts(conn, settings().transcripts_kept)}
            return done | prune_to_size(conn)

    _periodic("prune_transcripts", work)


def prune_to_size(conn: Connection) -> dict[str, int]:
    """Keep each project below BATON_PROJECT_BYTES; what was done, in numbers."""
    limit = settings().project_bytes
    if not limit:
        return {}
    done = transcript_limit.prune(conn, limit)
    for one in done:
        if one.told:
            seq, event = one.told
            announce(one.project_id, seq, [event], [])
    return {
        "pruned_for_size": sum(one.sessions for one in done),
        "projects_over": sum(one.stored > limit for one in done),
    }


@app.task(name="tasks.upkeep.clear_jobs")
def clear_jobs() -> None:
    """Finished jobs with their turns, ticks and silent workers go after their time."""

    def work() -> dict[str, Any]:
        with pool.connect() as conn:
            return upkeep.clear_jobs(conn, settings().jobs_kept)

    _periodic("clear_jobs", work)


@app.task(name="tasks.upkeep.sweep")
def sweep() -> None:
    """Litter of dead runs and of branches that ended goes from the host whose worker takes
    this, and no checkpoint is left without an end."""

    def work() -> dict[str, Any]:
        with pool.connect() as conn:
            branches = branch_places.sweep(conn)
        return {
            "directories": sweep_directories(),
            "branches": branches,
            "checkpoints": sweep_checkpoints(),
        }

    _periodic("sweep", work)
