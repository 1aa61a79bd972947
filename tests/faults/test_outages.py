"""Postgres is away for longer than a lease: no worker died of its job.

Whatever an attempt had come to is written when Postgres answers again, and three outages
do not set a job aside.
"""

import threading
from collections.abc import Callable, Iterator
from uuid import UUID

import pytest

from db.jobs import jobs, rescue
from tests.faults.conftest import Tally
from tests.faults.driving import drive, running, through_a_wire, wrong
from tests.faults.wire import Wire
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.agent import Request, Turn
from worker.client import Build, Update
from worker.failures.errors import AgentFailed
from worker.process import crash_points

SHORT_LEASE = {"BATON_LEASE": "2", "BATON_RENEW_EVERY": "0.5", "BATON_CANCEL_POLL": "0.2"}


@pytest.mark.parametrize("first", ["relay", pytest.param("worker", marks=pytest.mark.long)])
def test_an_outage_longer_than_the_lease_is_no_death_of_the_worker(
    at_work: AtWork, dsn: str, first: str, long: bool, tally: Tally
):
    """Whichever finds Postgres again first: three deaths would have the job set aside."""
    tally.fault = f"Postgres: away for longer than the lease, first back: the {first}"
    at_work.configure(**SHORT_LEASE)
    with through_a_wire(at_work, dsn) as wire:
        asked = at_work.ask(Build(project=P, user=U, prompt="run: sleep 30\nsay done"))
        for _ in range(2 if long else 1):
            with running(at_work, asked):
                cut(wire)
                wait_until(lambda: over(at_work, asked), description="the lease's end")
                if first == "relay":
                    assert rescue.rescue(at_work.conn, asked, attempt=None, limit=3) == "queued"
                wire.refusing = False
            tally.ran()
            assert at_rest(at_work, asked) == ("queued", 0, 0)
    jobs.cancel(at_work.conn, asked)
    tally.check(wrong(at_work))


@pytest.fixture
def at_point(dsn: str) -> Iterator[Callable[[str, Callable[[], None]], None]]:
    """`at_point(name, do)`: do it when this process reaches the point."""

    def order(name: str, do: Callable[[], None]) -> None:
        crash_points.strike = lambda reached: do() if reached == name else None

    yield order
    crash_points.strike = None


def test_a_turn_that_cannot_be_committed_in_time_is_committed_later(
    at_work: AtWork,
    dsn: str,
    at_point: Callable[[str, Callable[[], None]], None],
    tally: Tally,
):
    """Also on the last attempt: the turn is whole, and nothing is the job's fault."""
    tally.fault = "Postgres: away at the commit, until the lease is over, on the last attempt"
    at_work.configure(BATON_ATTEMPTS="1", **SHORT_LEASE)
    with through_a_wire(at_work, dsn) as wire:
        asked = at_work.ask(Build(project=P, user=U, prompt="write a.txt: a"))
        at_point("commit.before", lambda: away_for(wire, 4))
        assert at_work.run(asked).state == "waits"
    crash_points.strike = None
    tally.ran()
    calls = len(at_work.model.requests)
    drive(at_work, asked, alone=True)
    assert (at_work.job(asked).state, len(at_work.model.requests)) == ("done", calls)
    tally.check(wrong(at_work))


@pytest.mark.long
def test_a_verdict_that_could_not_be_written_is_written_when_postgres_answers(
    at_work: AtWork, dsn: str, tally: Tally
):
    """Else a job that used up its turns would begin again with as many."""
    tally.fault = "Postgres: away when a job fails for good"

    def failing(request: Request, **more: object) -> Turn:
        away_for(wire, 14)  # longer than a blip, shorter than the lease
        raise AgentFailed("max_turns", "It failed.", ending="max_turns")

    with through_a_wire(at_work, dsn) as wire:
        asked = at_work.ask(Build(project=P, user=U, prompt="say 1"))
        assert at_work.run(asked, failing).state == "failed"
    tally.ran()
    job = at_work.job(asked)
    assert (job.state, job.error_class, job.rescues) == ("failed", "max_turns", 0)
    tally.check(wrong(at_work))


@pytest.mark.long
def test_an_outage_while_a_session_is_loaded_costs_no_attempt(
    at_work: AtWork,
    dsn: str,
    at_point: Callable[[str, Callable[[], None]], None],
    tally: Tally,
):
    tally.fault = "Postgres: away while a session is loaded to be resumed"
    at_work.begin("write a.txt: a")
    head, calls = at_work.head(), len(at_work.model.requests)
    with through_a_wire(at_work, dsn) as wire:
        asked = at_work.ask(Update(project=P, user=U, prompt="write b.txt: b"))
        at_point("turn.recorded", lambda: away_for(wire, 14))
        assert at_work.run(asked).state == "waits"
    crash_points.strike = None
    tally.ran()
    assert at_rest(at_work, asked) == ("queued", 0, 0)
    assert len(at_work.model.requests) == calls, "no turn was begun"
    drive(at_work, asked, alone=True)
    assert at_work.job(asked).state == "done"
    assert at_work.moves()[-1][4] == head, "the session is resumed all the same"
    assert "write a.txt: a" in at_work.model.requests[-1].prompts
    tally.check(wrong(at_work))


def cut(wire: Wire) -> None:
    wire.refusing = True
    wire.cut()


def away_for(wire: Wire, seconds: float) -> None:
    """No connection lives or is made for so long; returns at once."""

    def back() -> None:
        wire.refusing = False

    cut(wire)
    threading.Timer(seconds, back).start()


def over(at_work: AtWork, asked: UUID) -> bool:
    return bool(at_work.value("select lease_until < now() from jobs where id = %s", asked))


def at_rest(at_work: AtWork, asked: UUID) -> tuple[str, int, int]:
    job = at_work.job(asked)
    return job.state, job.attempts, job.rescues
