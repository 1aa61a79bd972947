"""Revokes and refused messages in the ledger: durable whoever is online, never waited for by
Celery's main loop, and bounded."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from celery import Celery
from celery.exceptions import Reject
from psycopg import Connection
from tenacity import stop_after_attempt

from config.settings import settings
from db.core import pool
from db.jobs import jobs, messages
from tests.commandline import NOWHERE, Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.conftest import Configure
from tests.invariants import violations
from tests.ledger import advance, ask, begun, job_row, next_job, one, turn
from tests.lock_waits import lock_waits
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker import relay
from worker.app import app
from worker.broker import revokes
from worker.client import Build, ChatPlan, enqueue, refusal
from worker.job import delivery
from worker.process.notes import Notes

pytestmark = pytest.mark.agent("direct")


@pytest.fixture
def served(dsn: str, redis_url: str, configure: Configure) -> None:
    """Postgres and Redis are in the settings, and our Celery application uses that Redis."""
    configure(DATABASE_URL=dsn, REDIS_URL=redis_url)
    app.conf.update(broker_url=redis_url)


@pytest.mark.parametrize("terminate", [False, True])
def test_a_revoke_by_flower_is_a_cancel_while_no_worker_is_online(
    served: None, conn: Connection, terminate: bool
):
    job, running = ask(conn), begun(conn, project="q")
    app.control.revoke([str(job), f"{running.id}.2"], terminate=terminate, signal="SIGKILL")
    assert job_row(conn, job) == "cancelled"
    assert job_row(conn, running.id, "cancel_requested_at")
    assert violations(conn) == []


def test_a_revoke_of_anybodys_is_a_cancel_while_only_a_relay_is_online(
    served: None, conn: Connection, redis_url: str
):
    job = ask(conn)
    with (
        running(revokes.listen_for_good),
        Celery(broker=redis_url, set_as_current=False) as strange,
    ):
        wait_until(
            lambda: strange.control.revoke(str(job)) or job_row(conn, job) == "cancelled",
            description="the job to be cancelled",
        )


@contextmanager
def running(loop: Callable[[threading.Event], None]) -> Generator[None]:
    """What a process does until it is told to end."""
    ended = threading.Event()
    thread = threading.Thread(target=loop, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_revoke_waits_for_nobody_and_is_done_when_its_job_is_let_go(
    conn: Connection, dsn: str
):
    held, free = ask(conn), ask(conn, project="q")
    messages.revoke(conn, [held, free])
    with psycopg.connect(dsn) as producer:
        producer.execute("select from jobs where id = %s for update", (held,))
        assert messages.cancel_revoked(conn) == 1, "while another holds the row"
        assert (job_row(conn, held), job_row(conn, free)) == ("queued", "cancelled")
    assert messages.cancel_revoked(conn) == 1
    assert job_row(conn, held) == "cancelled"
    assert messages.cancel_revoked(conn) == 0


def test_a_cancel_by_hand_waits_for_a_while_and_is_done_when_its_job_is_let_go(
    baton: Baton, conn: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jobs.cancel, "__kwdefaults__", {"patience": "100ms"})
    job = ask(conn)
    with psycopg.connect(dsn) as producer:
        producer.execute("select from jobs where id = %s for update", (job,))
        told = baton("cancel", str(job))
        assert (told.code, "as soon as that one ends" in told.err) == (1, True), told
    assert messages.cancel_revoked(conn) == 1
    assert job_row(conn, job) == "cancelled"


def test_many_revoked_jobs_that_somebody_holds_stand_in_nobodys_way(
    conn: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "AT_ONCE", 2)
    held, free = [ask(conn, project=f"p{n}") for n in range(2)], ask(conn)
    for job in (*held, free):
        messages.revoke(conn, [job])
    with psycopg.connect(dsn) as producer:
        producer.execute("select from jobs where id = any(%s) for update", (held,))
        assert messages.cancel_revoked(conn) == 1
        assert job_row(conn, free) == "cancelled"
    assert messages.cancel_revoked(conn) == 2


def test_revoked_jobs_of_a_project_that_somebody_holds_are_neither_waited_for_nor_in_the_way(
    conn: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "AT_ONCE", 2)
    held, running = [ask(conn) for _ in range(4)], begun(conn, project="q").id
    with psycopg.connect(dsn) as operator:
        operator.execute("update projects set user_id = user_id")
        free = ask(conn, project="r")
        for job in (*held, running, free):
            messages.revoke(conn, [job])
        waits = lock_waits(conn)
        assert messages.cancel_revoked(conn) == 2
        assert waits == []
        assert job_row(conn, free) == "cancelled"
        assert job_row(conn, running, "cancel_requested_at"), "its end is its worker's to tell"
    assert [messages.cancel_revoked(conn) for _ in range(3)] == [2, 2, 0]
    assert {job_row(conn, job) for job in held} == {"cancelled"}
    assert violations(conn) == []


def test_a_revoke_is_not_waited_for_where_what_follows_in_its_chain_is_held(
    conn: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "AT_ONCE", 1)
    job, following, free = begun(conn), next_job(), ask(conn, project="q")
    assert advance(conn, job, turn(conn, job), following=following)
    for each in (job.id, free):
        messages.revoke(conn, [each])
    with psycopg.connect(dsn) as operator:
        operator.execute("select from jobs where id = %s for update", (following.id,))
        waits = lock_waits(conn)
        assert messages.cancel_revoked(conn) == 1
        assert (waits, job_row(conn, free)) == ([], "cancelled")
    assert messages.cancel_revoked(conn) == 1
    assert job_row(conn, following.id) == "cancelled"


def hours_ago(conn: Connection, hours: int) -> None:
    conn.execute("update revoked_tasks set at = at - %s * interval '1 hour'", (hours,))


def test_a_cancel_that_nobody_could_do_for_an_hour_is_done_before_its_job_runs(
    served: None, conn: Connection
):
    job, none = ask(conn), uuid4()
    messages.revoke(conn, [job, none])
    hours_ago(conn, 2)
    assert messages.cancel_revoked(conn) == 0, "a look costs no week of revokes"
    with running(relay._loop):  # pyright: ignore[reportPrivateUsage]
        wait_until(
            lambda: job_row(conn, job, "state, messages") != ("queued", 0),
            description="the relay to begin",
        )
    assert job_row(conn, job, "state, messages") == ("cancelled", 0)
    assert one(
        conn, "select job_id from revoked_tasks where at < now() - interval '1 hour'"
    ) == (none)


def test_a_cancel_that_a_transaction_held_up_for_longer_than_revokes_are_kept_is_done(
    conn: Connection, dsn: str
):
    job = ask(conn)
    messages.revoke(conn, [job, uuid4()])
    hours_ago(conn, 8 * 24)
    with psycopg.connect(dsn) as operator:
        operator.execute("select from jobs where id = %s for update", (job,))
        assert messages.clear(conn) == 1, "the one that is nobody's"
        assert messages.renew(conn) == 1
        assert messages.cancel_revoked(conn) == 0
    assert messages.cancel_revoked(conn) == 1
    assert (job_row(conn, job), messages.renew(conn)) == ("cancelled", 0)
    hours_ago(conn, 8 * 24)
    assert messages.clear(conn) == 1, "it is done"


def test_a_job_that_is_revoked_before_its_producer_commits_is_cancelled_then(
    conn: Connection, dsn: str
):
    with psycopg.connect(dsn) as producer:
        job = ask(producer)
        messages.revoke(conn, [job])
        assert messages.cancel_revoked(conn) == 0
    assert messages.cancel_revoked(conn) == 1
    assert job_row(conn, job) == "cancelled"


def test_a_plain_message_that_was_revoked_is_a_cancelled_job_at_once(
    at_work: AtWork, conn: Connection
):
    task_id = str(uuid4())
    messages.revoke(conn, [jobs.id_of_task(task_id) or uuid4()])
    asked = {"project_id": P, "user_id": U, "prompt": "say no"}
    for _ in range(2):  # it is delivered twice
        job = delivery.accept("chat_plan", task_id, asked)
        assert job_row(conn, job, "state, error_class") == ("cancelled", "cancelled")
        assert at_work.run(job).state == "cancelled"
    assert at_work.model.requests == ()
    later = at_work.ask(ChatPlan(project=P, user=U, prompt="say yes"))
    assert at_work.run(later).state == "done", "nothing stands in its way"


@pytest.fixture
def notes(configure: Configure) -> Iterator[Notes]:
    """A worker's notes while Postgres is away."""
    configure(DATABASE_URL=NOWHERE)
    assert settings().database_url.get_secret_value() == NOWHERE
    yield (notes := Notes())
    notes.end()


def test_what_is_to_be_written_is_not_waited_for_while_postgres_is_away(notes: Notes):
    taken = [notes.write(lambda _: None) for _ in range(10_010)]
    assert taken[:10_000] == [True] * 10_000
    assert not taken[-1], "there is a bound, and it is told"
    assert not notes.written(within=0.1)


def test_what_was_to_be_written_is_as_soon_as_postgres_is_back(
    notes: Notes, conn: Connection, dsn: str, configure: Configure
):
    job = uuid4()
    notes.write(lambda at: at.execute("select 1/0"))  # what can never be written stops nothing
    notes.write(lambda at: messages.revoke(at, [job]))
    assert not notes.written(within=0.1)
    configure(DATABASE_URL=dsn)
    assert notes.written(within=20)
    assert one(conn, "select job_id from revoked_tasks") == job


def test_a_revoke_and_a_refusal_go_after_a_week_and_a_storm_of_them_before(conn: Connection):
    messages.revoke(conn, [uuid4(), uuid4()])
    for n in range(5):
        messages.refuse(conn, f"t{n}", "tasks.biuld", "unknown_task", "There is no such task.")
    messages.refuse(conn, "t4", "tasks.biuld", "unknown_task", "There is no such task.")
    assert messages.clear(conn) == 0
    assert messages.clear(conn, most=3) == 2
    kept = messages.newest_refused(conn)
    assert [(each.task_id, each.times) for each in kept] == [("t4", 2), ("t3", 1), ("t2", 1)]
    for table in ("revoked_tasks", "refused_messages"):
        conn.execute(f"update {table} set at = now() - interval '8 days'".encode())
    assert messages.newest_refused(conn, within=timedelta(days=7)) == []
    assert messages.clear(conn) == 5


def test_a_producer_finds_why_its_message_was_refused(conn: Connection):
    messages.refuse(conn, "order 7", "tasks.build", "refused", "The prompt is empty: say more.")
    assert refusal(conn, "order 7") == "The prompt is empty: say more."
    assert refusal(conn, "order 8") is None


def test_a_refused_message_goes_back_while_nobody_can_write_it_down(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
):
    configure(DATABASE_URL=NOWHERE)
    pool.close()
    monkeypatch.setattr(pool, "WAIT", 0.1)
    monkeypatch.setattr(
        "worker.broker.refused_messages._kept.retry.stop", stop_after_attempt(1)
    )
    task: Any = SimpleNamespace(name="tasks.build", request=SimpleNamespace(id="order 7"))
    with pytest.raises(Reject) as put_back:
        delivery.deliver(task, "build", (), {"job_id": "no id"})
    assert vars(put_back.value)["requeue"]
    pool.close()


def test_a_message_that_finds_its_job_done_is_no_failure(at_work: AtWork):
    """A second wake-up is the relay's, which cannot know that the first one did it."""
    job = at_work.ask(ChatPlan(project=P, user=U, prompt="say done"))
    at_work.run(job)
    wake = cast(Any, app).tasks["tasks.chat_plan"]
    shown = wake.apply(kwargs={"job_id": str(job)}, task_id=f"{job}.2")
    assert (shown.state, shown.result) == ("SUCCESS", delivery.IDLE)


def test_a_request_whose_key_an_open_transaction_holds_frees_its_slot_and_is_asked_again(
    at_work: AtWork, dsn: str
):
    asked = {"project_id": P, "user_id": U, "prompt": "say 1", "key": "order 1"}
    with psycopg.connect(dsn) as producer:
        enqueue(producer, Build(project=P, user=U, prompt="say 1", key="order 1"))
        began = time.monotonic()
        with pytest.raises(Reject) as put_back:
            delivery.accept("build", str(uuid4()), asked)
        assert time.monotonic() - began < 8, "one wait for the lock, not one after the other"
        assert cast(Any, put_back.value).requeue
        producer.rollback()
    assert at_work.job(delivery.accept("build", str(uuid4()), asked)).state == "queued"
