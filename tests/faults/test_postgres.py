"""Postgres that is restarted, killed, read only, or held up by an operator, in mid-turn."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from uuid import UUID, uuid4

import psycopg
import pytest
from celery.exceptions import Reject

from db.core.migrate import migrate
from db.jobs import jobs
from db.transcripts import transcripts
from db.transcripts.form import soundness
from dev.stack import processes
from dev.stack.embedded import open_postgres
from dev.stack.server import Server
from tests.faults.conftest import Tally
from tests.faults.driving import drive, running, wrong
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker import relay
from worker.client import Build, ChatPlan, Update, enqueue
from worker.job.delivery import accept
from worker.process import crash_points

pytestmark = pytest.mark.timeout(800)
PROMPT = "run: echo {n} >> log.txt; sleep 0.5\nsay done {n}"
# Those that a build and its metadata pass in one process, each with Postgres in reach.
PASSED = (
    *("claim.before", "claim.after", "workspace.begun", "turn.recorded", "turn.began"),
    *("transcript.stored", "tool", "tool.done", "text", "turn.ended", "tree.made"),
    *("commit.before", "commit.after", "publish.before", "publish.after"),
    *("workspace.confirmed", "checkpoint.saved", "lease.renewed"),
)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, operator: ThreadPoolExecutor
) -> Iterator[Server]:
    """A Postgres of this module's own: durable, and to be killed."""
    with open_postgres(tmp_path_factory.mktemp("durable"), durable=True) as found:
        yield found


@pytest.fixture
def dsn(server: Server) -> str:
    """A new database there, with our schema."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(server.url, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())
    url = f"{server.url.rpartition('/')[0]}/{name}"
    migrate(url)
    return url


@pytest.fixture(scope="module")
def operator() -> Iterator[ThreadPoolExecutor]:
    """A thread that outlives every job: the server ends with the thread that started it."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


def kill(server: Server) -> None:
    server.kill()


def stop_at_once(server: Server) -> None:
    """As `pg_ctl stop -m immediate` does it."""
    here = server.process
    assert here
    os.kill(here.pid, signal.SIGQUIT)
    assert processes.gone([here], within=10)


@pytest.fixture(autouse=True)
def _hung_up(at_work: AtWork) -> Iterator[None]:
    """The connection that a test has made anew is closed at its end."""
    yield
    at_work.conn.close()


@pytest.fixture
def strike_at(
    operator: ThreadPoolExecutor,
) -> Iterator[Callable[[str, Callable[[], None]], threading.Event]]:
    """`strike_at(point, do)`: do it once, at that point of a job's life; the event says when."""

    def arm(name: str, do: Callable[[], None]) -> threading.Event:
        done, turn = threading.Event(), threading.Lock()

        def strike(reached: str) -> None:
            if reached == name and turn.acquire(blocking=False):  # once, and never let go
                operator.submit(do).result()
                done.set()

        crash_points.strike = strike
        return done

    yield arm
    crash_points.strike = None


@pytest.mark.long
def test_postgres_may_be_restarted_at_any_point_of_a_job(
    at_work: AtWork,
    server: Server,
    dsn: str,
    long: bool,
    tally: Tally,
    seed: int,
    strike_at: Callable[[str, Callable[[], None]], threading.Event],
    redis_url: str,
):
    tally.fault = "Postgres: killed, or stopped at once, and restarted at a point"
    at_work.configure(BATON_RENEW_EVERY="0.2", BATON_CANCEL_POLL="0.1")
    draw = random.Random(seed)
    for n, point in enumerate(PASSED if long else draw.sample(PASSED, 2)):
        end = draw.choice([kill, stop_at_once])

        def restart(end: Callable[[Server], None] = end) -> None:
            end(server)
            threading.Event().wait(draw.uniform(0, 1))  # that long Postgres is away
            server.start()

        asked = at_work.ask(
            (Update if n else Build)(project=P, user=U, prompt=PROMPT.format(n=n))
        )
        done = strike_at(point, restart)
        began = time.monotonic()
        drive_in_touch(at_work, asked, dsn)
        wait_until(done.is_set, timeout=30, description=f"{point} to be struck")
        drive_in_touch(at_work, asked, dsn)
        tally.ran()
        tally.recovered(time.monotonic() - began)
        assert at_work.job(asked).state == "done"
        written = (at_work.place / "log.txt").read_text().split()
        assert written == [str(each) for each in range(n + 1)], f"{point}, seed {seed}"
    tally.note = "p50, p99: the whole job, with the restart in it"
    tally.check(wrong(at_work, redis_url))


def drive_in_touch(at_work: AtWork, asked: UUID, dsn: str) -> None:
    """As `drive`, with the test's own connection made anew as often as it breaks."""

    def driven() -> bool:
        with suppress(psycopg.OperationalError):
            at_work.conn.close()
            at_work.conn = psycopg.connect(dsn, autocommit=True)
            drive(at_work, asked, alone=True)
            return True
        return False

    wait_until(driven, timeout=60, description="Postgres, and the job's end")


@pytest.mark.long
def test_no_acknowledged_enqueue_is_lost_when_postgres_is_killed(
    server: Server, dsn: str, long: bool, tally: Tally
):
    tally.fault = "Postgres: SIGKILL while four producers enqueue"
    tally.simulated = "a power cut: the kernel keeps what was written and not flushed"
    acknowledged = list[UUID]()
    for kills in range(15 if long else 2):
        threads = [threading.Thread(target=produce, args=(dsn, acknowledged)) for _ in range(4)]
        for thread in threads:
            thread.start()
        enough = len(acknowledged) + 20 + 7 * (kills % 5)
        wait_until(lambda: len(acknowledged) >= enough, description="enqueues")  # noqa: B023
        server.kill()
        for thread in threads:
            thread.join(20)
        began = time.monotonic()
        server.start()
        tally.ran()
        tally.recovered(time.monotonic() - began)
        with psycopg.connect(dsn) as conn:
            kept = {job_id for (job_id,) in conn.execute("select id from jobs")}
        lost = set(acknowledged) - kept
        tally.check([f"{len(lost)} of {len(acknowledged)} enqueues are lost"] if lost else [])
    tally.note = f"{len(acknowledged)} enqueues acknowledged"


def produce(dsn: str, acknowledged: list[UUID]) -> None:
    """Ask for work until the server is gone."""
    with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as conn:
        while True:
            asked = enqueue(conn, ChatPlan(project=f"p{uuid4().hex}", user=U, prompt="say 1"))
            acknowledged.append(asked.id)


@contextmanager
def read_only(server: Server) -> Generator[None]:
    """Postgres refuses every write, in the sessions that are open too."""
    with psycopg.connect(server.url, autocommit=True) as conn:

        def switch(to: str) -> None:
            conn.execute("set default_transaction_read_only = off")
            conn.execute(f"alter system set default_transaction_read_only = {to}".encode())
            conn.execute("select pg_reload_conf()")
            with psycopg.connect(server.url) as other:
                wait_until(
                    lambda: (
                        other.execute("show default_transaction_read_only").fetchone() == (to,)
                    ),
                    description=f"read only: {to}",
                )

        switch("on")
        try:
            yield
        finally:
            switch("off")


def test_a_turn_outlasts_a_postgres_that_takes_no_writes(
    at_work: AtWork, server: Server, dsn: str, tally: Tally
):
    tally.fault = "Postgres: read only for 2 s while a turn runs"
    asked = at_work.ask(Build(project=P, user=U, prompt="run: sleep 0.5\nwrite a.txt: 1"))
    with running(at_work, asked) as attempt, read_only(server):
        with psycopg.connect(dsn) as producer, pytest.raises(psycopg.Error, match="read-only"):
            enqueue(producer, ChatPlan(project=P, user=U, prompt="say 2"))
        wait_until(lambda: at_work.model.requests[-1].messages > 2, description="the write")
        threading.Event().wait(2)  # longer than the SDK tries a batch again
    tally.ran()
    job = at_work.job(asked)
    assert (job.state, job.attempts) == ("done", 1)
    turns = at_work.rows("select attempt, outcome from turns where job_id = %s", asked)
    assert turns == [(attempt, "committed")]
    said = transcripts.load(at_work.conn, P, at_work.head() or "") or []
    uuids = [entry["uuid"] for entry in said if "uuid" in entry]
    assert len(uuids) == len(set(uuids))
    assert soundness(said) is None
    assert "a.txt" in str(said)
    drive(at_work, asked, alone=True)
    assert (at_work.place / "a.txt").read_text() == "1"
    tally.check(wrong(at_work))


@pytest.mark.long
def test_a_postgres_that_takes_no_writes_for_longer_than_the_lease_is_no_death(
    at_work: AtWork, server: Server, tally: Tally
):
    """It answers all the while whether a cancel was asked for."""
    tally.fault = "Postgres: read only for longer than the lease"
    at_work.configure(BATON_LEASE="6", BATON_RENEW_EVERY="0.5", BATON_CANCEL_POLL="0.2")
    asked = at_work.ask(Build(project=P, user=U, prompt="run: sleep 30\nsay done"))
    over = "select lease_until < now() from jobs where id = %s"
    with running(at_work, asked), read_only(server):
        wait_until(lambda: at_work.value(over, asked), description="the lease's end")
    tally.ran()
    job = at_work.job(asked)
    assert (job.state, job.attempts, job.rescues) == ("queued", 0, 0)
    jobs.cancel(at_work.conn, asked)
    tally.check(wrong(at_work))


@pytest.mark.long
def test_a_plain_message_goes_back_while_postgres_takes_no_writes(
    at_work: AtWork, server: Server, tally: Tally
):
    tally.fault = "Postgres: read only when a plain Celery message comes"
    asked = {"project_id": P, "user_id": U, "prompt": "say 1"}
    with read_only(server), pytest.raises(Reject) as rejected:
        accept("build", str(uuid4()), asked)
    assert "requeue=True" in repr(rejected.value)
    tally.ran()
    drive(at_work, accept("build", str(uuid4()), asked))
    tally.check(wrong(at_work))


@contextmanager
def held(dsn: str, project: str) -> Generator[psycopg.Connection]:
    """An operator has locked the project's row, and went for a coffee."""
    with psycopg.connect(dsn) as operator:
        operator.execute("select from projects where project_id = %s for update", (project,))
        yield operator


def test_a_commit_waits_for_an_operator_who_holds_the_project(
    at_work: AtWork, dsn: str, tally: Tally
):
    tally.fault = "Postgres: an operator holds the project's row past the lease"
    at_work.begin("say 1")
    at_work.configure(BATON_LEASE="6", BATON_RENEW_EVERY="0.5")
    asked = at_work.ask(Update(project=P, user=U, prompt="run: sleep 2\nsay 2"))
    with running(at_work, asked), held(dsn, P):
        wait_until(
            lambda: at_work.value("select lease_until < now() from jobs where id = %s", asked),
            description="the lease's end",
        )
    tally.ran()
    job = at_work.job(asked)
    assert (job.state, job.attempts, job.rescues) == ("done", 1, 0)
    jobs.cancel(at_work.conn, asked)
    tally.check(wrong(at_work))


def test_the_relay_waits_for_no_project_that_is_held(at_work: AtWork, dsn: str, tally: Tally):
    tally.fault = "Postgres: an operator holds a project's row, others wait for the relay"
    at_work.begin("say 1")
    at_work.ask(Update(project=P, user=U, prompt="say 2"))
    other = at_work.ask(Build(project="other", user=U, prompt="say 3"))
    looked = threading.Thread(target=look_for, args=(other, at_work))
    with held(dsn, P):
        looked.start()
        looked.join(60)
        published = not looked.is_alive()
    looked.join()
    tally.ran()
    assert published
    for (asked,) in at_work.rows("select id from jobs where id = chain_id"):
        jobs.cancel(at_work.conn, asked)
    tally.check(wrong(at_work))


def look_for(job_id: UUID, at_work: AtWork) -> None:
    """As the relay does, until the job's message is out."""
    while not at_work.value("select messages from jobs where id = %s", job_id):
        relay.rescue_once()
        relay.run_once()
