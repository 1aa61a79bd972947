"""One connection pool per process.

Every statement of ours is prepared on first use (measured: it halves what Postgres
spends on a step). A connection is autocommit: a statement is its own transaction
unless `transaction()` makes a block of several.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool

from config.settings import settings

# A connection that has died is noticed in seconds, not when TCP gives up.
LIVENESS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,  # milliseconds
    "application_name": "baton",
}


class NoDatabase(Exception):
    """No database is named, or it does not answer; the text says what to do."""


def connect(url: str | None = None) -> Connection:
    """A connection of its own, for a process that is not a pool's. Raises NoDatabase."""
    url = url or settings().database_url
    if not url:
        raise NoDatabase("No database: set DATABASE_URL, or start `make up` in this checkout.")
    try:
        return psycopg.connect(url, autocommit=True, prepare_threshold=0, **LIVENESS)
    except psycopg.OperationalError as exc:
        raise NoDatabase(
            "Postgres does not answer at DATABASE_URL: start it, or correct the address."
        ) from exc


@cache
def pool() -> ConnectionPool:
    """The pool, opened on first use: after Celery has forked, never before."""
    if not settings().database_url:
        raise NoDatabase("No database: set DATABASE_URL, or start `make up` in this checkout.")
    return ConnectionPool(
        settings().database_url,
        min_size=1,
        max_size=4,
        timeout=10,
        open=True,
        check=ConnectionPool.check_connection,
        kwargs={"autocommit": True, "prepare_threshold": 0, **LIVENESS},
    )


@contextmanager
def connection() -> Generator[Connection]:
    """A connection for single statements, each its own transaction."""
    with pool().connection() as conn:
        yield conn


@contextmanager
def transaction() -> Generator[Connection]:
    """A connection whose work commits when the block ends, and rolls back if it raises."""
    with pool().connection() as conn, conn.transaction():
        yield conn


def close() -> None:
    """Close this process's pool, if it has one: at the end of a process, or before a fork."""
    if pool.cache_info().currsize:
        pool().close()
        pool.cache_clear()
