"""A database whose own defaults are not Postgres's: we say what we need, on every connection."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, LiteralString

import pytest
from psycopg import Connection
from structlog.testing import capture_logs

from db.core import async_pool, pool
from db.transcripts import appends, transcripts
from tests.conftest import Configure
from tests.databases import by_default
from tests.gateways import gateway
from tests.ledger import blocked
from tests.machine import needs_pgbouncer
from tests.pooler import pgbouncer
from tests.waiting import wait_until
from worker.cli import doctor
from worker.process import postgres

P = "shop"


@pytest.fixture(params=["direct", pytest.param("pooled", marks=needs_pgbouncer)])
def reached(
    request: pytest.FixtureRequest, dsn: str, tmp_path: Path, configure: Configure
) -> Iterator[str]:
    """The URL of the test's database, with and without a pooler before it."""
    with ExitStack() as stays:
        by_default(dsn, "default_transaction_isolation", "repeatable read")
        url = (
            stays.enter_context(pgbouncer(dsn, tmp_path)) if request.param == "pooled" else dsn
        )
        configure(DATABASE_URL=url)
        pool.close()
        stays.callback(pool.close)
        yield url


def test_we_run_at_read_committed_whatever_the_database_has_by_default(reached: str):
    shown = "select current_setting('transaction_isolation')"
    with pool.connect() as conn, conn.transaction():
        assert conn.execute(shown).fetchone() == ("read committed",)
    with pool.connect() as conn, pool.connection() as other:
        assert conn.execute(shown).fetchone() == ("read committed",)
        assert other.execute(shown).fetchone() == ("read committed",)
    with pool.transaction() as conn:
        assert conn.execute(shown).fetchone() == ("read committed",)


def test_an_async_connection_too_runs_at_read_committed(reached: str):
    shown: LiteralString = "select current_setting('transaction_isolation')"

    async def seen() -> list[Any]:
        async with async_pool.pool("2s") as made, made.connection() as conn:
            alone = await (await conn.execute(shown)).fetchone()
            async with conn.transaction(), conn.cursor() as cur:
                within = await (await cur.execute(shown)).fetchone()
            lock = await (await conn.execute("show lock_timeout")).fetchone()
        return [alone, within, lock]

    assert asyncio.run(seen()) == [("read committed",), ("read committed",), ("2s",)]


def test_a_gateway_takes_a_request_that_must_see_what_others_commit(
    reached: str, tmp_path: Path
):
    asked = {"kind": "build", "project": P, "user": "ann", "prompt": "go", "busy": "reject"}
    with gateway(reached, "", tmp_path / "log") as at, at.http as http:
        answers = [http.post("/v1/jobs", json=asked) for _ in range(2)]
    assert [one.status_code for one in answers] == [202, 409], [one.text for one in answers]


def test_two_lanes_of_a_project_append_the_same_entry_at_once(reached: str, conn: Connection):
    entries: list[Any] = [{"type": "user", "message": "the same for both"}]
    with ThreadPoolExecutor(1) as threads:
        with pool.transaction() as first:
            appends.append(first, P, "main", entries)
            second = threads.submit(_append, "branch", entries)
            wait_until(lambda: blocked(conn), description="the other lane to wait its turn")
        assert second.result(10) == 1
    with pool.connection() as looking:
        assert transcripts.load(looking, P, "branch") == entries


def _append(session: str, entries: list[Any]) -> int:
    with pool.transaction() as conn:
        return appends.append(conn, P, session, entries)


@pytest.mark.parametrize(
    ("name", "value", "state", "told"),
    [
        ("default_transaction_read_only", "on", "fail", "no job will run"),
        ("default_transaction_isolation", "serializable", "warn", "busy=reject"),
        ("synchronous_commit", "off", "warn", "may be lost"),
        ("statement_timeout", "1500ms", "warn", "statement_timeout is 1.5 s"),
        ("lock_timeout", "10ms", "warn", "lock_timeout is 0.01 s"),
        ("idle_in_transaction_session_timeout", "2s", "warn", "give it 10 s or more"),
        ("statement_timeout", "10min", "ok", "suit"),
    ],
)
def test_defaults_of_the_database_that_hurt_are_named(
    dsn: str, configure: Configure, name: str, value: str, state: str, told: str
):
    by_default(dsn, "synchronous_commit", "on")  # the tests' server has it off
    by_default(dsn, name, value)
    configure(DATABASE_URL=dsn)
    found = next(check for check in doctor.examine() if check.name == "database")
    assert (found.state, told in found.text) == (state, True), found


def test_a_worker_and_a_relay_say_so_when_they_start(dsn: str, configure: Configure):
    by_default(dsn, "statement_timeout", "1s")
    configure(DATABASE_URL=dsn)
    with capture_logs() as logged:
        postgres.tell_at_start()
    assert [(line["event"], "1 s" in line["error"]) for line in logged] == [
        ("postgres.unfit", True)
    ]
