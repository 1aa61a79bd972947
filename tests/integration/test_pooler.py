"""Behind a connection pooler: a whole job runs, and nothing of ours reaches its other clients."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from db.core import async_pool, migrate, pool
from db.operations import deletion
from db.operations.deletion import Held
from tests.conftest import Configure
from tests.invariants import violations
from tests.ledger import ask, at_once, begun, claim
from tests.machine import needs_pgbouncer
from tests.pooler import pgbouncer
from tests.running import AtWork
from worker import relay
from worker.cli import doctor
from worker.client import Build, enqueue_async

pytestmark = needs_pgbouncer


@pytest.fixture
def pooled(dsn: str, tmp_path: Path, configure: Configure) -> Iterator[str]:
    """The URL of the test's database through PgBouncer, which is in the settings too."""
    with pgbouncer(dsn, tmp_path) as url:
        configure(DATABASE_URL=url)
        pool.close()
        yield url
        pool.close()


def test_a_job_of_the_real_cli_runs_through_a_pooler_and_the_next_resumes_it(
    at_work: AtWork, pooled: str
):
    with pool.connect() as at_work.conn:
        first = at_work.build("write a.txt: hello")
        second = at_work.build("write b.txt: hello")
        assert [(job.state, job.error) for job in (first, second)] == [("done", None)] * 2
        assert at_work.model.requests[-1].prompts == (
            "write a.txt: hello",
            "write b.txt: hello",
        )
        assert violations(at_work.conn, stored=True) == []
    for look in (relay.tend_once, relay.run_once, relay.cancel_revoked):
        look()


def test_our_connections_leave_nothing_behind_for_others_of_the_pooler(pooled: str):
    begun_through(pooled)
    with psycopg.connect(pooled, autocommit=True) as other:
        for _ in range(5):
            left = other.execute(
                """
                select name, setting from pg_settings
                 where source = 'session' and (name ~ 'timeout|tcp|transaction')
                """
            ).fetchall()
            assert left == []
            assert other.execute("select name from pg_prepared_statements").fetchall() == []
            assert (
                other.execute("select from pg_locks where locktype = 'advisory'").rowcount == 0
            )


def begun_through(url: str) -> None:
    """Use connections of every kind for what jobs do."""
    with pool.connection() as conn:
        job = begun(conn)
    with pool.transaction() as conn:
        conn.execute("select from jobs where id = %s for update", (job.id,))
    with pool.connect(url) as conn:
        assert begun(conn, project="another")
    asyncio.run(_asked_through_an_async_pool())


async def _asked_through_an_async_pool() -> None:
    async with async_pool.pool("2s") as made, made.connection() as conn:
        for n in range(8):
            wanted = Build(project=f"async-{n}", user="ann", prompt="go")
            assert await enqueue_async(conn, wanted)


def test_a_block_behind_a_pooler_has_the_time_limit_that_our_own_connections_have(pooled: str):
    with pool.transaction() as conn:
        assert conn.execute("show idle_in_transaction_session_timeout").fetchone() == ("1min",)
        with conn.transaction():  # a savepoint
            assert conn.execute("select 1").fetchone() == (1,)


def test_without_a_pooler_every_statement_is_prepared(dsn: str):
    with pool.connect(dsn) as conn:
        conn.execute("select 1")
        ((prepared,),) = conn.execute(
            "select count(*) from pg_prepared_statements where statement = 'select 1'"
        ).fetchall()
    assert prepared == 1


def test_migrations_run_through_a_pooler(empty_dsn: str, tmp_path: Path):
    with pgbouncer(empty_dsn, tmp_path) as url:
        assert migrate.migrate(url)
        assert migrate.migrate(url) == []


def test_many_at_once_through_a_few_connections(pooled: str):
    with pool.connect() as conn:
        jobs = [ask(conn, project=f"p{n}") for n in range(4)]
    outcomes = at_once(pooled, lambda _: _claimed_by_somebody(pooled))
    assert [one for one in outcomes if isinstance(one, psycopg.Error)] == []
    with pool.connect() as conn:
        assert conn.execute("select from jobs where state = 'running'").rowcount == len(jobs)


def _claimed_by_somebody(url: str) -> None:
    with pool.connect(url) as conn:
        for (job,) in conn.execute("select id from jobs order by id").fetchall():
            claim(conn, job)


def test_of_two_deletions_behind_a_pooler_one_waits_its_turn(pooled: str):
    with pool.connect() as one, pool.connect() as other:
        with deletion.alone(one):
            for _ in range(3):
                with pytest.raises(Held), deletion.alone(other):
                    pass
        for _ in range(3):
            with deletion.alone(other):
                pass


def test_the_lock_of_a_deletion_goes_with_its_process(dsn: str, conn: Connection):
    with psycopg.connect(dsn) as gone:
        holding = deletion.alone(gone)
        holding.__enter__()
        with pytest.raises(Held), deletion.alone(conn):
            pass
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    with deletion.alone(conn):
        pass


def test_doctor_says_that_a_pooler_is_there(pooled: str):
    found = next(check for check in doctor.examine() if check.name == "postgres")
    assert (found.state, "through a connection pooler" in found.text) == ("ok", True)
