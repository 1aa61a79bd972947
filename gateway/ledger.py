"""Where the ledger does not serve: Postgres is away, or busy, or is older than this gateway, or somebody's
transaction holds what is needed. What clients are told then, at every door; and how what it refuses for
good is told in the log."""

from typing import Final

import psycopg
from psycopg import errors

from db.core.outages import is_stopped, may_pass
from db.core.refusals import rule
from gateway.access.shares import Crowded

BEHIND: Final = (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedColumn)
ERRORS: Final = (psycopg.Error, OSError)  # a pool's time-out is one
HELD: Final = "Somebody's transaction holds what this needs: send it again later."
CROWD: Final = "Too much is asked for this user at once: send it again later."
PATIENCE: Final = (
    "2s"  # for whoever holds a lock: less than a connection is waited for (async_pool.WAIT)
)
MIGRATE = "The database is older than this gateway: run `baton migrate`."
FAILED = "Something is wrong here: it is in the log."


def is_away(exc: BaseException) -> bool:
    """Whether it does not serve just now, and will: whatever else it says it says again."""
    return isinstance(exc, (*BEHIND, OSError)) or may_pass(exc)


def code(exc: BaseException) -> str:
    """Why it does not serve, for programs."""
    return "not_migrated" if isinstance(exc, BEHIND) else "postgres_away"


def why(exc: BaseException) -> str:
    """Why it does not serve, in one sentence."""
    if isinstance(exc, BEHIND):
        return MIGRATE
    if isinstance(exc, errors.LockNotAvailable):
        return HELD
    if isinstance(exc, Crowded):
        return CROWD
    if is_stopped(exc):
        return "Postgres stopped this, for a lock or a limit of time: try it again."
    return "Postgres does not answer just now."


def told(exc: BaseException) -> str:
    """The error for the log: the rule that was broken, and no value, which a user may have written."""
    return rule(exc) if isinstance(exc, psycopg.Error) else type(exc).__name__
