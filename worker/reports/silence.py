"""How long the agent of a running job has said nothing, beside how long it has been running.

The worker notes it in Redis (worker/live/progress.py), by the clock that ends an idle agent. Nothing
else knows it: of an agent that waits for a command to end, the ledger hears nothing either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection

from config.settings import settings
from db.jobs import waiting


@dataclass(frozen=True, slots=True)
class Signs:
    """Seconds since the attempt began, and since its agent was last heard; None: no agent runs,
    or Redis does not tell."""

    runs_s: float
    silent_s: float | None


def of(conn: Connection, ids: Sequence[UUID]) -> dict[UUID, Signs]:
    """Of each of these jobs that runs, for how long, and for how long in silence."""
    runs = waiting.running_for(conn, ids)
    noted = _noted(list(runs))
    return {
        one: Signs(runs_s, min(noted[one], runs_s) if one in noted else None)
        for one, runs_s in runs.items()  # an attempt is not silent for longer than it runs
    }


def _noted(ids: list[UUID]) -> dict[UUID, float]:
    if not ids or not settings().redis_url:
        return {}
    from worker.live import progress

    return progress.silences(ids)
