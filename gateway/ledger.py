"""Where the ledger does not serve: Postgres is away, or is older than this gateway. What clients are told
then, at every door."""

from typing import Final

import psycopg
import psycopg_pool
from psycopg import errors

BEHIND: Final = (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn)
AWAY: Final = (psycopg.OperationalError, psycopg_pool.PoolTimeout, OSError, *BEHIND)
MIGRATE = "The database is older than this gateway: run `baton migrate`."


def code(exc: BaseException) -> str:
    """Why it does not serve, for programs."""
    return "not_migrated" if isinstance(exc, BEHIND) else "postgres_away"


def why(exc: BaseException) -> str:
    """Why it does not serve, in one sentence."""
    return MIGRATE if isinstance(exc, BEHIND) else "Postgres does not answer just now."
