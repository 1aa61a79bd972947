"""One connection pool per process, of connections of our own (db/core/connections.py).

A connection is autocommit: a statement is its own transaction unless `transaction()` makes
a block of several.
"""

import atexit
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, LiteralString

import psycopg

from config.settings import asking
from db.core.connections import LIVENESS, Own

if TYPE_CHECKING:  # a command of `baton` has one connection, and needs no pool
    from psycopg_pool import ConnectionPool


# Seconds for which the pool itself tries to connect, with growing pauses; whoever asks for a
# connection then begins anew. The longer, the longer it finds out late that Postgres is back.
RECONNECT = 5.0
# A process asks the same few statements for ever, and each is planned once: of the longest ones a plan
# takes longer than the work. (Left alone Postgres plans each five times, and some always.) So a plan
# is to serve a large ledger though it was made of an empty one, of which to read all costs least; and
# none is worth compiling.
PLAN_ONCE: LiteralString = """
    select set_config('plan_cache_mode', 'force_generic_plan', false),
           set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false)"""
SIZE = 4
WAIT = 10.0  # seconds for which a connection is waited for


class NoDatabase(Exception):
    """No database is named, or it does not answer; the text says what to do."""


def connect(url: str | None = None) -> Own:
    """A connection of its own, for a process that is not a pool's. Raises NoDatabase."""
    url = url or asking().database_url.get_secret_value()
    if not url:
        raise NoDatabase("No database: set DATABASE_URL, or start `baton up` here.")
    try:
        return Own.connect(url, autocommit=True, prepare_threshold=0, **LIVENESS).begin()
    except psycopg.ProgrammingError as exc:
        if exc.sqlstate:
            raise
        raise NoDatabase(
            "DATABASE_URL is not usable: write it as postgresql://user:password@host/name."
        ) from exc
    except psycopg.OperationalError as exc:
        _, refused, why = str(exc).partition("FATAL:")
        if refused:
            raise NoDatabase(
                f"Postgres refuses the connection ({why.splitlines()[0].strip()}): correct DATABASE_URL, or the server."
            ) from exc
        if untrusted := re.search(
            r"(SSL error: |server (?:certificate|does not support SSL)).*", str(exc)
        ):
            raise NoDatabase(
                f"Postgres is not to be trusted ({untrusted[0].rstrip('.')}): name who signs its"
                " certificate in DATABASE_URL's sslrootcert, or the host that it is for."
            ) from exc
        raise NoDatabase(
            "Postgres does not answer at DATABASE_URL: start it, or correct the address."
        ) from exc


@cache
def pool() -> "ConnectionPool[Own]":
    """The pool, opened on first use: after Celery has forked, never before."""
    if not asking().database_url:
        raise NoDatabase("No database: set DATABASE_URL, or start `baton up` here.")
    from psycopg_pool import ConnectionPool

    class Warm(ConnectionPool[Own]):
        """Gives the connection that was given back last: one after the other each would make its
        own plans, and each one's server process find its memory gone from the processor's caches."""

        def _get_ready_connection(self, timeout: float | None) -> Own | None:
            self._pool.rotate(1)  # it is the first then
            return super()._get_ready_connection(timeout)

    atexit.register(close)  # left alone, its threads hold Python 3.13 for 20 s at the end
    return Warm(
        asking().database_url.get_secret_value(),
        connection_class=Own,
        min_size=1,
        max_size=SIZE,
        timeout=WAIT,
        open=True,
        configure=_begin,
        check=_check,
        reconnect_timeout=RECONNECT,
        kwargs={"autocommit": True, "prepare_threshold": 0, **LIVENESS},
    )


def _begin(conn: Own) -> None:
    conn.begin()
    if not conn.pooled:
        conn.execute(PLAN_ONCE, prepare=False)


def _check(conn: Own) -> None:
    """Raises for a connection that has died. One that was used just now is not asked.

    The others of the pool have most likely died with it: all are made anew now, instead of one
    after the other with growing pauses.
    """
    from psycopg_pool import ConnectionPool

    if conn.seems_alive():
        return
    try:
        ConnectionPool.check_connection(conn)
    except psycopg.Error:
        pool().drain()
        raise


@contextmanager
def connection(timeout: float = WAIT) -> Generator[Own]:
    """A connection for single statements, each its own transaction; waited for `timeout` s."""
    with pool().connection(timeout=min(timeout, WAIT)) as conn:
        yield conn
        conn.used_at = time.monotonic()


@contextmanager
def transaction() -> Generator[Own]:
    """A connection whose work commits when the block ends, and rolls back if it raises."""
    with connection() as conn, conn.transaction():
        yield conn


def close() -> None:
    """Close this process's pool, if it has one: at the end of a process, or before a fork."""
    if pool.cache_info().currsize:
        pool().close()
        pool.cache_clear()
