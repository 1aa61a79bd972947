"""What is told to end, or has taken too long, ends: with its agent, and all that its tools began."""

import time
from datetime import timedelta
from uuid import UUID

import pytest

from db.jobs import jobs, limits
from tests.faults.apart import STUBBORN, living
from tests.faults.conftest import Tally
from tests.faults.driving import running, wrong
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.client import Build

GONE = 5.0  # seconds after a cancel


def asked(at_work: AtWork) -> UUID:
    return at_work.ask(Build(project=P, user=U, prompt=STUBBORN))


def test_a_cancelled_turn_leaves_nothing_alive(at_work: AtWork, tally: Tally, long: bool):
    tally.fault = "cancel of a running job, twice"
    job = asked(at_work)
    with running(at_work, job) as attempt:
        began = time.monotonic()
        for _ in range(2):
            jobs.cancel(at_work.conn, job)
        wait_until(lambda: not living(attempt), description="nothing to be alive")
        tally.recovered(took := time.monotonic() - began)
    tally.ran()
    assert took <= GONE or not long, "the short run shares its processors"
    assert at_work.job(job).state == "cancelled"
    assert len(at_work.events("job.cancelled")) == 1
    tally.check(wrong(at_work))


@pytest.mark.parametrize("state", ["queued", "parked"])
def test_a_job_that_waits_is_cancelled_with_no_worker_there(
    at_work: AtWork, tally: Tally, state: str
):
    tally.fault = f"cancel of a {state} job without a worker, twice"
    job = asked(at_work)
    if state == "parked":
        hour = timedelta(hours=1)
        limits.impose(at_work.conn, "a key", wait=hour, reason="rate_limit")
        limits.park_waiting(at_work.conn, job, "a key", silent_after=hour)
    assert at_work.job(job).state == state
    for _ in range(2):
        jobs.cancel(at_work.conn, job)
    tally.ran()
    assert at_work.job(job).state == "cancelled"
    assert len(at_work.events("job.cancelled")) == 1
    assert at_work.run(job).state == "cancelled"
    assert not at_work.model.requests
    tally.check(wrong(at_work))


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        pytest.param("BATON_TURN_TIMEOUT", "turn_timeout", marks=pytest.mark.long),
        ("BATON_IDLE_TIMEOUT", "idle_timeout"),
    ],
)
def test_a_turn_that_takes_too_long_leaves_nothing_alive(
    at_work: AtWork, tally: Tally, limit: str, why: str
):
    tally.fault = f"a turn past its limit ({why})"
    at_work.configure(**{limit: "12"})  # seconds: in less, a busy machine may not start the CLI
    job = asked(at_work)
    with running(at_work, job) as attempt:
        wait_until(lambda: not living(attempt), timeout=30, description="nothing to be alive")
    tally.ran()
    ended = at_work.job(job)
    assert (ended.state, ended.error_class) == ("queued", why)
    jobs.cancel(at_work.conn, job)
    tally.check(wrong(at_work))


@pytest.mark.long
def test_a_command_that_runs_for_longer_than_the_limit_of_silence_is_awaited(
    at_work: AtWork, tally: Tally
):
    tally.fault = "a command of 75 s, with an agent that may be silent for 45 s"
    at_work.configure(BATON_IDLE_TIMEOUT="45")
    job = at_work.build("run: sleep 75\nsay it is done")
    tally.ran()
    assert (job.state, job.attempts, job.error) == ("done", 1, None)
    tally.check(wrong(at_work))
