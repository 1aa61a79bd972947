"""The same request sent twice is one job, at whatever moment it comes; and a date ahead holds no place."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection, IsolationLevel, errors

from db.core.codes import refusal
from tests.ledger import ask, at_once, begun, blocked, built, claim, commit, job_row, one
from tests.waiting import wait_until

POLICIES = ("enqueue", "reject", "replace", "interrupt")
LATER = datetime.now(UTC) + timedelta(days=7)


def identities() -> list[dict[str, Any]]:
    return [{"key": "k"}, {"id": uuid4()}, {"key": "k", "id": uuid4()}]


def second_while_first_is_undecided(
    dsn: str, asked: dict[str, Any], *, keep: bool
) -> tuple[UUID, UUID]:
    """What two get who ask at once, the first of whom commits or not."""
    with (
        psycopg.connect(dsn) as first,
        psycopg.connect(dsn, autocommit=True) as second,
        psycopg.connect(dsn, autocommit=True) as looker,
        ThreadPoolExecutor() as threads,
    ):
        before = ask(first, **asked)
        waits = threads.submit(ask, second, **asked)
        wait_until(lambda: blocked(looker), description="the second to wait for the first")
        first.commit() if keep else first.rollback()
        return before, waits.result(10)


@pytest.mark.parametrize("busy", POLICIES)
def test_of_two_that_ask_at_once_with_one_key_both_get_the_one_job(
    conn: Connection, dsn: str, busy: str
):
    for number, same in enumerate(identities()):
        project = f"p{number}"
        asked = {"project": project, "busy": busy, **same}
        first, second = second_while_first_is_undecided(dsn, asked, keep=True)
        assert first == second == ask(conn, **asked), "and for every later try"
        assert one(conn, "select count(*) from jobs where project_id = %s", project) == 1
        job = claim(conn, first)
        assert job, "it was not cancelled for itself"
        commit(conn, job)
        assert job_row(conn, ask(conn, **asked)) == "done"


@pytest.mark.parametrize("busy", POLICIES)
def test_when_the_first_of_two_rolls_back_the_second_has_its_own_job(
    conn: Connection, dsn: str, busy: str
):
    ask(conn, "chat_plan", run_at=LATER)  # the project is there: nobody waits for its row
    asked = {"busy": busy, "key": "k"}
    lost, kept = second_while_first_is_undecided(dsn, asked, keep=False)
    assert lost != kept
    assert job_row(conn, kept, "state, key") == ("queued", "k")
    assert one(conn, "select count(*) from jobs where id = %s", lost) == 0


@pytest.mark.parametrize("busy", POLICIES)
def test_whoever_repeats_a_request_among_others_gets_its_job(
    conn: Connection, dsn: str, busy: str
):
    """Eight send the same three requests, each in an order of its own."""
    ask(conn, "chat_plan", run_at=LATER)

    def work(own: Connection) -> dict[str, Any]:
        answers = dict[str, Any]()
        keys = ["a", "b", "c"]
        Random(own.info.backend_pid).shuffle(keys)
        for key in keys:
            try:
                answers[key] = ask(own, key=key, busy=busy)
            except psycopg.Error as exc:
                why = refusal(exc)
                assert why
                answers[key] = why.code
        return answers

    found = at_once(dsn, work)
    for key in ("a", "b", "c"):
        given = {answers[key] for answers in found if isinstance(answers, dict)}
        kept = conn.execute("select id from jobs where key = %s", (key,)).fetchall()
        assert given - {"busy"} == {job for (job,) in kept}
    open_now = one(conn, "select count(*) from jobs where key is not null and state = 'queued'")
    assert open_now == (3 if busy == "enqueue" else 1)


def test_a_date_ahead_makes_nobody_busy_and_is_not_replaced(conn: Connection):
    ahead = ask(conn, run_at=LATER)
    for busy in ("reject", "replace", "interrupt"):
        now = ask(conn, busy=busy)
        assert job_row(conn, ahead) == "queued"
        job = claim(conn, now)
        assert job, busy
        commit(conn, job)


def test_what_is_due_parked_or_begun_makes_busy(conn: Connection):
    for state in ("queued", "parked", "tried", "running"):
        waits = begun(conn).id if state in ("tried", "running") else ask(conn)
        if state in ("parked", "tried"):
            conn.execute(
                "update jobs set state = %s, lease_until = null, run_at = %s where id = %s",
                ("parked" if state == "parked" else "queued", LATER, waits),
            )
        with pytest.raises(psycopg.Error, match="The project is busy"):
            ask(conn, busy="reject")
        conn.execute(
            "update jobs set state = 'failed', lease_until = null, finished_at = now()"
            " where finished_at is null"
        )
    assert ask(conn, busy="reject")


def test_a_request_for_later_takes_nobodys_place_now(conn: Connection):
    waits = ask(conn)
    for busy in ("reject", "replace", "interrupt"):
        assert job_row(conn, ask(conn, busy=busy, run_at=LATER)) == "queued"
        assert job_row(conn, waits) == "queued"


def test_reject_sees_what_was_asked_for_while_it_waited(conn: Connection, dsn: str):
    """Its transaction began before the other's: its own now() is earlier than that one's job."""
    built(conn)
    with (
        psycopg.connect(dsn) as slow,
        psycopg.connect(dsn) as quick,
        psycopg.connect(dsn, autocommit=True) as looker,
        ThreadPoolExecutor() as threads,
    ):
        slow.execute("select now()")
        ask(quick, busy="reject")
        waits = threads.submit(ask, slow, busy="reject")
        wait_until(lambda: blocked(looker), description="the slow one to wait")
        quick.commit()
        with pytest.raises(psycopg.Error, match="The project is busy"):
            waits.result(10)


LEVELS = (IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)


@pytest.mark.parametrize("level", LEVELS)
def test_a_transaction_that_looks_at_the_past_makes_no_second_job(
    conn: Connection, dsn: str, level: IsolationLevel
):
    for number, same in enumerate(identities()):
        asked = {"project": f"p{number}", **same}
        with psycopg.connect(dsn) as producer:
            producer.isolation_level = level
            producer.execute("select count(*) from jobs")
            first = ask(conn, **asked)
            with pytest.raises(errors.SerializationFailure):
                ask(producer, **asked)
            producer.rollback()
            assert ask(producer, **asked) == first, "it is done again, and is right"


@pytest.mark.parametrize("level", LEVELS)
def test_what_such_a_transaction_cannot_know_is_refused(
    conn: Connection, dsn: str, level: IsolationLevel
):
    conn.execute("""insert into baton_settings values ('workspaces', '["/srv"]')""")
    with psycopg.connect(dsn) as producer:
        producer.isolation_level = level
        producer.execute("select count(*) from jobs")
        ask(conn)
        for more in ({"busy": "reject"}, {"busy": "replace"}, {"busy": "interrupt"}):
            with pytest.raises(psycopg.Error, match="begin it as READ COMMITTED") as told:
                ask(producer, project="q", **more)
            assert told.value.sqlstate == "BA013"
            producer.rollback()
        with pytest.raises(psycopg.Error, match="begin it as READ COMMITTED"):
            ask(producer, project="q", workspace="/srv/w")
        producer.rollback()
        assert ask(producer, project="q"), "all else goes"


@pytest.mark.parametrize("level", LEVELS)
def test_such_a_transaction_counts_with_the_others_of_its_user(
    conn: Connection, dsn: str, level: IsolationLevel
):
    conn.execute("insert into baton_settings values ('user_rate', '1')")
    with psycopg.connect(dsn) as producer:
        producer.isolation_level = level
        producer.execute("select count(*) from jobs")
        ask(conn)
        with pytest.raises(errors.SerializationFailure):
            ask(producer, project="q")
