"""The pool of connections of a process: which it gives, and what it leaves when the process ends."""

import os
import subprocess
import sys

from db.core import pool
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
