"""What an error of Postgres' says of another try: whether Postgres is away, or stopped this statement alone.

psycopg's classes do not say it. Its OperationalError holds all that is not the programmer's: a lost
connection, a full disk, but also a row that no index can hold, which is refused however often it is asked.
"""

import psycopg
from psycopg import errors

# Beginnings of SQLSTATEs. Postgres is away, or takes no writes for now: whoever waits is served.
AWAY = (
    "08",  # the connection; a pooler says all of its own with 08P01
    "53",  # no disk, memory or connections left
    "570",  # 57000: an operator is at it (57014 is told apart)
    "57P",  # it is shut down, or starts
    "58",  # its system refuses it a file
    "25006",  # it is read only: a standby, most likely, after a failover
    "25P03",  # this process was stopped for so long that its transaction was ended
)
# The statement was stopped, and nothing of it is done: by another's lock, or by a limit of time
# that the role or the database has. The next may pass; or, where a trigger takes longer than the
# limit, none ever does. So it is tried again a few times, and not for ever.
STOPPED = (
    errors.QueryCanceled,
    errors.LockNotAvailable,
    errors.ObjectInUse,
    errors.TransactionTimeout,
)
ROLLED_BACK = "40"  # beginning of SQLSTATEs: a deadlock, a serialization failure


def is_away(exc: BaseException | None) -> bool:
    """Whether Postgres is away. Of a statement that ends like this nobody knows whether it was done:
    read before going on (a pool's time-out is one of the first)."""
    if isinstance(exc, psycopg.InterfaceError):
        return True
    if not isinstance(exc, psycopg.Error) or is_stopped(exc):
        return False
    if exc.sqlstate is None:  # no server said it: the connection is lost, or there is none
        return isinstance(exc, psycopg.OperationalError)
    return exc.sqlstate.startswith(AWAY)


def is_stopped(exc: BaseException | None) -> bool:
    """Whether this statement alone was stopped, and may pass if it is sent again."""
    if isinstance(exc, STOPPED):
        return True
    return isinstance(exc, psycopg.Error) and (exc.sqlstate or "").startswith(ROLLED_BACK)


def may_pass(exc: BaseException | None) -> bool:
    """Whether it is of use to try again what failed like this."""
    return is_away(exc) or is_stopped(exc)
