"""The store that a job gives to its agent: fenced, of one project, and it knows what is lost."""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from claude_agent_sdk import SessionKey
from psycopg import Connection

from db.transcripts import appends, transcripts
from tests.waiting import wait_until
from worker.agent.store import JobStore, PostgresStore, Transaction
from worker.failures.errors import AttemptReplaced, CaptureIncomplete
from worker.process import fence

P = "project"
MODE: Any = {"type": "mode"}
ASKED: Any = {"type": "user", "uuid": "a"}


def key(session_id: str = "s") -> SessionKey:
    """As the SDK makes it: of the directory that the agent works in."""
    return {"project_key": "-home-somebody-workspaces-project", "session_id": session_id}


@pytest.fixture
def opened(dsn: str) -> Transaction:
    @contextmanager
    def transaction() -> Generator[Connection]:
        with psycopg.connect(dsn, autocommit=True) as own, own.transaction():
            yield own

    return transaction


@pytest.fixture
def job(conn: Connection) -> tuple[UUID, UUID]:
    """A running job and its attempt."""
    job_id, attempt = uuid4(), uuid4()
    conn.execute(
        """
        insert into jobs (id, chain_id, project_id, user_id, kind, state, attempt, lease_until)
        values (%s, %s, %s, 'user', 'build', 'running', %s, now() + interval '30 s')
        """,
        (job_id, job_id, P, attempt),
    )
    return job_id, attempt


def test_no_path_of_the_machine_becomes_a_key(
    conn: Connection, opened: Transaction, job: tuple[UUID, UUID]
):
    store = job_store(opened, job)
    asyncio.run(store.append(key(), [MODE]))
    asyncio.run(store.append({**key(), "subpath": "subagents/agent-1"}, [MODE, MODE]))
    assert conn.execute("select distinct project_id from transcript_sessions").fetchall() == [
        (P,)
    ]
    assert asyncio.run(store.load(key())) == [MODE]
    assert asyncio.run(store.list_subkeys(key())) == ["subagents/agent-1"]
    assert (store.appended, store.whole) == (3, True)


def test_a_fork_has_its_parents_sub_agents_from_its_first_append_on(
    conn: Connection, opened: Transaction, job: tuple[UUID, UUID]
):
    """So also a turn that breaks off can be gone on from with them."""
    agent: SessionKey = {**key("parent"), "subpath": "subagents/agent-1"}
    before = job_store(opened, job)
    asyncio.run(before.append(key("parent"), [MODE]))
    asyncio.run(before.append(agent, [ASKED]))

    store = job_store(opened, job, parent=("parent", [MODE]))
    asyncio.run(store.append(key("child"), [MODE]))

    assert asyncio.run(store.list_subkeys(key("child"))) == ["subagents/agent-1"]
    assert asyncio.run(store.load({**agent, "session_id": "child"})) == [ASKED]
    assert asyncio.run(store.load(key("child"))) == [MODE]


@pytest.mark.parametrize(
    "change",
    [
        "update jobs set attempt = gen_random_uuid()",
        "update jobs set state = 'queued', lease_until = null",
        "delete from jobs",
    ],
)
def test_a_replaced_attempt_writes_nothing(
    conn: Connection, opened: Transaction, job: tuple[UUID, UUID], change: LiteralString
):
    store = job_store(opened, job)
    conn.execute(change)
    with pytest.raises(AttemptReplaced):
        asyncio.run(store.append(key(), [MODE]))
    assert transcripts.load(conn, P, "s") is None
    assert conn.execute("select count(*) from transcript_entries").fetchone() == (0,)
    assert (store.appended, store.whole) == (0, False)


@pytest.mark.parametrize(
    ("project", "lane", "refused"),
    [(P, "main", False), (P, "branch-x", True), ("another", "main", True)],
)
def test_a_session_of_another_line_or_project_is_not_written_to(
    conn: Connection,
    opened: Transaction,
    job: tuple[UUID, UUID],
    project: str,
    lane: str,
    refused: bool,
):
    conn.execute(
        """
        insert into project_ai_session_metrics (session_id, project_id, user_id, lane)
        values ('s', %s, 'user', %s)
        """,
        (project, lane),
    )
    store = job_store(opened, job)
    if refused:
        with pytest.raises(CaptureIncomplete, match="another line of work"):
            asyncio.run(store.append(key(), [MODE]))
    else:
        asyncio.run(store.append(key(), [MODE]))
    assert transcripts.load(conn, P, "s") == (None if refused else [MODE])
    assert store.whole is not refused


def test_a_takeover_and_an_append_that_meet_are_one_after_the_other(
    conn: Connection, opened: Transaction, job: tuple[UUID, UUID], dsn: str
):
    store = job_store(opened, job)
    with psycopg.connect(dsn) as rescuer, ThreadPoolExecutor() as threads:
        rescuer.execute("update jobs set attempt = gen_random_uuid()")
        appended = threads.submit(asyncio.run, store.append(key(), [MODE]))
        wait_until(lambda: waiting_for_a_row(conn), description="the append waits")
        rescuer.commit()
        assert isinstance(appended.exception(10), AttemptReplaced)
    assert transcripts.load(conn, P, "s") is None


def test_a_renewal_does_not_wait_for_an_append_that_waits_its_turn(
    conn: Connection, opened: Transaction, job: tuple[UUID, UUID], dsn: str
):
    store = job_store(opened, job)
    with psycopg.connect(dsn) as another, ThreadPoolExecutor() as threads:
        appends.lock(another, P)
        appended = threads.submit(asyncio.run, store.append(key(), [MODE]))
        wait_until(lambda: waiting_for_a_turn(conn), description="the append waits")
        conn.execute("set lock_timeout = '2s'")
        conn.execute("update jobs set lease_until = now() + interval '30 s'")
        another.commit()
        appended.result(10)
    assert transcripts.load(conn, P, "s") == [MODE]


def test_the_parent_that_was_checked_is_not_read_again(
    conn: Connection, opened: Transaction, job: tuple[UUID, UUID]
):
    checked = [ASKED]
    store = job_store(opened, job, parent=("parent", checked))
    assert asyncio.run(store.load(key("parent"))) == checked
    assert asyncio.run(store.load({**key("parent"), "subpath": "x"})) is None
    assert asyncio.run(store.load(key("another"))) is None


def test_of_a_template_only_the_parent_is_read_and_nothing_is_written(
    conn: Connection, opened: Transaction, job: tuple[UUID, UUID]
):
    agent = "subagents/agent-1"
    with conn.transaction():
        for session in ("parent", "another"):
            appends.append(conn, "shops", session, [ASKED], subpath=agent)
    before = conn.execute("select * from transcript_sessions").fetchall()

    store = job_store(opened, job, parent=("parent", [MODE]), template="shops")
    assert asyncio.run(store.list_subkeys(key("parent"))) == [agent]
    assert asyncio.run(store.load({**key("parent"), "subpath": agent})) == [ASKED]
    assert asyncio.run(store.list_subkeys(key("another"))) == []
    assert asyncio.run(store.load({**key("another"), "subpath": agent})) is None

    asyncio.run(store.append(key("child"), [MODE]))
    asyncio.run(store.append({**key("parent"), "subpath": agent}, [MODE]))
    assert asyncio.run(store.load({**key("child"), "subpath": agent})) == [ASKED]
    assert transcripts.load(conn, P, "parent", subpath=agent) == [MODE]
    theirs = "select * from transcript_sessions where project_id = 'shops'"
    assert conn.execute(theirs).fetchall() == before


def test_a_batch_whose_commit_was_not_heard_of_is_not_doubled(
    conn: Connection, opened: Transaction
):
    store = PostgresStore(then_once(opened, cut_wire, after_commit=True))
    batch = [MODE, ASKED, MODE]
    with pytest.raises(psycopg.OperationalError):
        asyncio.run(store.append(key(), batch))
    assert not store.whole
    asyncio.run(store.append(key(), batch))  # as the SDK does: the very same list
    assert store.whole
    asyncio.run(store.append(key(), [MODE]))
    assert asyncio.run(store.load(key())) == [*batch, MODE]


@pytest.mark.parametrize("after_commit", [False, True])
def test_an_append_outlasts_a_postgres_that_is_away_while_the_job_is_held(
    opened: Transaction, job: tuple[UUID, UUID], after_commit: bool
):
    store = job_store(then_once(opened, cut_wire, after_commit=after_commit), job)
    with fence.fenced(lambda: 30.0):
        asyncio.run(store.append(key(), [MODE, ASKED, MODE]))
    assert store.whole
    assert asyncio.run(store.load(key())) == [MODE, ASKED, MODE]


def test_an_append_waits_no_longer_than_the_job_is_held(
    opened: Transaction, job: tuple[UUID, UUID]
):
    store = job_store(then_once(opened, cut_wire, after_commit=False), job)
    with fence.fenced(lambda: 0.0), pytest.raises(psycopg.OperationalError):
        asyncio.run(store.append(key(), [MODE]))
    assert not store.whole


def test_a_batch_that_was_lost_is_not_forgotten(opened: Transaction):
    store = PostgresStore(then_once(opened, cut_wire, after_commit=False))
    with pytest.raises(psycopg.OperationalError):
        asyncio.run(store.append(key(), [MODE]))
    asyncio.run(store.append(key(), [ASKED]))
    assert not store.whole


def job_store(opened: Transaction, job: tuple[UUID, UUID], **more: Any) -> JobStore:
    return JobStore(P, job_id=job[0], attempt=job[1], transaction=opened, **more)


def cut_wire() -> None:
    raise psycopg.OperationalError("the connection is lost")


def then_once(
    opened: Transaction, fail: Callable[[], None], *, after_commit: bool
) -> Transaction:
    """The same transactions, the first of which fails at its end."""
    failures = iter([fail])

    @contextmanager
    def transaction() -> Generator[Connection]:
        broken = next(failures, None)
        with opened() as conn:
            yield conn
            if broken and not after_commit:
                broken()
        if broken:
            broken()

    return transaction


def waiting_for_a_row(conn: Connection) -> bool:
    return _waits(conn, "transactionid")


def waiting_for_a_turn(conn: Connection) -> bool:
    return _waits(conn, "advisory")


def _waits(conn: Connection, kind: str) -> bool:
    return conn.execute(
        """
        select count(*) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and wait_event = %s
        """,
        (kind,),
    ).fetchone() != (0,)
