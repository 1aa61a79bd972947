"""The pool of connections of a process: which it gives, and what it leaves when the process ends."""

import asyncio
import os
import subprocess
import sys
from contextlib import AsyncExitStack

import psycopg

from db.core import async_pool, pool
from tests.conftest import Configure

USES_IT = """
from db.core.pool import connection
with connection() as conn:
    print(conn.execute("select 1").fetchone()[0])
"""


def test_a_process_that_used_the_pool_ends_at_once_and_without_a_word(dsn: str):
    done = subprocess.run(
        [sys.executable, "-c", USES_IT],
        env={**os.environ, "DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_the_connection_that_was_given_back_last_is_given_next(dsn: str, configure: Configure):
    """Its plans are made."""
    configure(DATABASE_URL=dsn)
    try:
        with pool.connection() as first, pool.connection() as second:
            assert first is not second
        for _ in range(3):
            with pool.connection() as given:
                assert given is first
    finally:
        pool.close()


def test_after_all_its_connections_have_died_an_async_pool_gives_a_new_one(
    dsn: str, configure: Configure
):
    """One after the other they were found dead, with growing pauses, for longer than it waits."""
    configure(DATABASE_URL=dsn)

    async def use() -> object:
        async with async_pool.pool() as pool, AsyncExitStack() as held:
            for _ in range(async_pool.SIZE):
                await held.enter_async_context(pool.connection())
            await held.aclose()
            terminate_all(dsn)
            async with pool.connection() as conn:
                return await (await conn.execute("select 1")).fetchone()

    assert asyncio.run(use()) == (1,)


def terminate_all(dsn: str) -> None:
    """End every other connection to this database, and wait until it is gone."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
