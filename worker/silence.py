"""How long the agent of a running job has said nothing, beside how long it has been running.

The worker notes it in Redis (worker/progress.py), by the clock that ends an idle agent. Where
Redis does not know, the ledger does, less exactly: the turn's beginning, and the last part of
its transcript that was mirrored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection

from config.settings import settings
from db import waiting


@dataclass(frozen=True, slots=True)
class Signs:
    """Seconds since the attempt began, and since its agent was last heard."""

    runs_s: float
    silent_s: float


def of(conn: Connection, ids: Sequence[UUID]) -> dict[UUID, Signs]:
    """Of each of these jobs that runs, for how long, and for how long in silence."""
    found = waiting.signs(conn, ids)
    noted = _noted([sign.id for sign in found])
    return {
        sign.id: Signs(
            max(sign.runs_s, 0.0), max(min(sign.silent_s, noted.get(sign.id, sign.silent_s)), 0.0)
        )
        for sign in found
    }


def _noted(ids: list[UUID]) -> dict[UUID, float]:
    if not ids or not settings().redis_url:
        return {}
    from worker import progress  # Redis' client is slow to import

    try:
        return progress.silences(ids)
    except ValueError:  # an address that is none
        return {}
