"""One of a race, while it is at work: a build on a branch, that is told when the race is over."""

from typing import Any

import structlog

from db.core.pool import connection
from db.jobs import jobs
from db.projects import races
from worker.failures.errors import GitEnded, Stopped
from worker.job.attempt import Attempt
from worker.workspace import workspace

log = structlog.get_logger()


def check_open(at: Attempt) -> None:
    """One of a race has nothing to do once the race is over. Raises Stopped."""
    if "racer" in at.job.args and at.job.parent_id:
        with connection() as conn:
            race = jobs.get(conn, at.job.parent_id)
        if race and race.ended:
            raise Stopped("cancelled")


def change_of(at: Attempt) -> dict[str, Any]:
    """How much one of a race has changed, for its result: its host has the files. Of another build, or
    where git takes too long: nothing, which counts as the most. Raises WorkspaceAway."""
    if "racer" not in at.job.args or not at.job.tree:
        return {}
    with connection() as conn:
        base = races.base_of(conn, at.job)
    if base is None:
        return {}
    try:
        return {"patch_bytes": workspace.patch_bytes(at.job, at.cwd, base, at.job.tree)}
    except GitEnded as exc:
        log.warning("race.not_measured", error=str(exc))
        return {}
