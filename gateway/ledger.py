"""Where the ledger does not serve: Postgres is away, is older than this gateway, or somebody's transaction
holds what is needed. What clients are told then, at every door."""

from typing import Final

import psycopg
import psycopg_pool
from psycopg import errors

from gateway.access.shares import Crowded

BEHIND: Final = (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn)
AWAY: Final = (psycopg.OperationalError, psycopg_pool.PoolTimeout, OSError, *BEHIND)
HELD: Final = "Somebody's transaction holds what this needs: send it again later."
CROWD: Final = "Too much is asked for this user at once: send it again later."
PATIENCE: Final = (
    "2s"  # for whoever holds a lock: less than a connection is waited for (async_pool.WAIT)
)
MIGRATE = "The database is older than this gateway: run `baton migrate`."


def code(exc: BaseException) -> str:
    """Why it does not serve, for programs."""
    return "not_migrated" if isinstance(exc, BEHIND) else "postgres_away"


def why(exc: BaseException) -> str:
    """Why it does not serve, in one sentence."""
    if isinstance(exc, BEHIND):
        return MIGRATE
    if isinstance(exc, errors.LockNotAvailable):
        return HELD
    return CROWD if isinstance(exc, Crowded) else "Postgres does not answer just now."
