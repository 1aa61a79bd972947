"""Turns that are stopped, and attempts that are taken over: nothing half is ever a head."""

import json
import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.jobs import attempts, jobs, rescue
from dev.agents.scripted import scripted
from tests.direct import direct
from tests.machine import needs_bubblewrap
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from tests.workers import worker
from worker.agent.claude import claude
from worker.client import Build, Update
from worker.job import lease
from worker.process import crash_points, identity

TOLD = "<interrupted-request>"
LONG = "write a.txt: 1\nrun: sleep 60"


@contextmanager
def running(at_work: AtWork, job_id: UUID) -> Generator[None]:
    """The job runs in a thread; it is done when the block has ended."""
    thread = threading.Thread(target=at_work.run, args=(job_id,))
    thread.start()
    try:
        wait_until(lambda: at_its_bash(at_work), timeout=20, description="the agent's Bash")
        yield
    finally:
        wait_until(lambda: not thread.is_alive(), timeout=20, description="the job to be done")


def at_its_bash(at_work: AtWork) -> bool:
    """Whether the model has asked for its long command, and it runs."""
    attempt = at_work.rows("select attempt from jobs where state = 'running'")
    return bool(attempt) and any("sleep" in line for line in carrying(attempt[0][0]))


def carrying(attempt: UUID) -> list[str]:
    """The command lines of living processes that belong to an attempt."""
    mark, found = f"BATON_ATTEMPT={attempt}".encode(), list[str]()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "sandbox",
    [
        pytest.param("off", marks=pytest.mark.long),
        pytest.param("auto", marks=needs_bubblewrap),
    ],
)
def test_a_cancel_ends_the_agent_and_all_that_it_began(at_work: AtWork, sandbox: str):
    at_work.configure(BATON_SANDBOX=sandbox)
    at_work.build("write z.txt: 0", agent=scripted())
    before = at_work.head()
    asked = at_work.ask(Update(project=P, user=U, prompt="run: setsid sleep 300 & sleep 60"))
    with running(at_work, asked):
        attempt = at_work.value("select attempt from jobs where id = %s", asked)
        jobs.cancel(at_work.conn, asked)
    job = at_work.job(asked)
    assert (job.state, job.error_class) == ("cancelled", "cancelled")
    assert carrying(attempt) == []
    assert at_work.head() == before
    assert job.agent_pid
    assert at_work.turns(asked)[-1]["outcome"] == "failed"


def test_a_newer_request_takes_the_place_and_is_told_of_the_older(at_work: AtWork):
    at_work.configure(BATON_SANDBOX="off")
    older = at_work.ask(Build(project=P, user=U, prompt=LONG))
    with running(at_work, older):
        newer = at_work.ask(Update(project=P, user=U, prompt="say ok", busy="interrupt"))
    assert at_work.job(older).error_class == "replaced_by_request"
    assert at_work.run(newer).state == "done"
    seen = at_work.model.requests[-1]
    assert seen.prompts[-1] == "say ok"
    assert LONG.replace("\n", "\n| ") in seen.history
    assert json.dumps(seen.body).count(TOLD) == 1
    assert not (at_work.place / "a.txt").exists()  # set aside
    (told,) = at_work.events("workspace.kept_aside")
    assert told["ref"].startswith("refs/baton/lost/")
    jobs.cancel(at_work.conn, newer)
    hi = Update(project=P, user=U, prompt="say hi", busy="interrupt")
    third = at_work.one(hi, direct(at_work.model))
    assert third.state == "done"
    assert json.dumps(at_work.model.requests[-1].body).count(TOLD) == 1  # of the first only


def test_what_a_replaced_attempt_made_is_not_written(at_work: AtWork):
    at_work.build("begin", agent=scripted())
    before = at_work.head()

    def overtaken(request: Any, **more: Any) -> Any:
        turn = scripted()(request, **more)
        at_work.conn.execute("update jobs set attempt = %s where state = 'running'", (uuid4(),))
        return turn

    asked = at_work.ask(Update(project=P, user=U, prompt="go on"))
    assert at_work.run(asked, overtaken).state == "ignored"
    assert at_work.head() == before
    assert len(at_work.moves()) == 1
    assert at_work.job(asked).state == "running"  # it is the other attempt's


@pytest.mark.parametrize("when", ["during", "after"])
def test_no_head_without_a_whole_transcript(at_work: AtWork, when: str):
    at_work.begin("write a.txt: 1")
    before = at_work.head()

    class Refusing:
        """A store that loses what the agent wrote, or the session once it is written."""

        def __init__(self, store: Any) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        async def append(self, key: Any, entries: Any) -> None:
            if when == "during":
                raise OSError("the store is away")
            await self.store.append(key, entries)

        @property
        def whole(self) -> bool:
            return when == "after"

    def agent(request: Any, *, store: Any, watch: Any) -> Any:
        turn = claude(request, store=Refusing(store), watch=watch)  # pyright: ignore[reportArgumentType]
        at_work.lose(turn.session)
        return turn

    job = at_work.build("write b.txt: 2", agent=agent)
    assert (job.state, job.error_class) == ("queued", "capture_incomplete")
    assert at_work.head() == before
    (turn,) = at_work.turns(job.id)
    assert turn["outcome"] == "failed"
    assert turn["cost_usd"] > 0
    assert at_work.again(job.id).state == "done"
    assert at_work.model.requests[-1].prompts == ("write a.txt: 1", "write b.txt: 2")


def test_a_head_that_moved_meanwhile_is_not_overwritten(at_work: AtWork):
    at_work.build("begin", agent=scripted())
    other = str(uuid4())

    def slow(request: Any, **more: Any) -> Any:
        turn = scripted()(request, **more)
        at_work.conn.execute("update projects set last_ai_session_id = %s", (other,))
        return turn

    job = at_work.build("go on", agent=slow)
    assert (job.state, job.error_class) == ("queued", "head_moved")
    assert at_work.head() == other
    assert at_work.turns(job.id)[0]["cost_usd"] == 0.25


@pytest.mark.long  # tests/faults/test_partition.py
@pytest.mark.parametrize("sandbox", ["off", pytest.param("auto", marks=needs_bubblewrap)])
def test_nothing_of_the_agent_outlives_a_worker_that_is_killed(at_work: AtWork, sandbox: str):
    at_work.configure(BATON_SANDBOX=sandbox)
    asked = at_work.ask(
        Build(project=P, user=U, prompt="write a.txt: 1\nrun: setsid sleep 300 & sleep 60")
    )
    with worker(asked) as process:
        wait_until(lambda: at_its_bash(at_work), timeout=20, description="the agent's Bash")
        attempt = at_work.value("select attempt from jobs where id = %s", asked)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not carrying(attempt), timeout=6, description="all to be gone")
    assert rescue.rescue(at_work.conn, asked, attempt=attempt, limit=3) == "queued"
    assert at_work.turns(asked)[0]["outcome"] == "abandoned"
    assert at_work.job(asked).attempts == 0  # a dead worker spends none


@pytest.mark.long
def test_the_agent_of_a_paused_worker_is_gone_before_its_lease_ends(at_work: AtWork):
    at_work.configure(BATON_LEASE="8", BATON_RENEW_EVERY="0.5", BATON_SANDBOX="off")
    asked = at_work.ask(Build(project=P, user=U, prompt=LONG))
    with worker(asked) as process:
        wait_until(lambda: at_its_bash(at_work), timeout=20, description="the agent's Bash")
        attempt = at_work.value("select attempt from jobs where id = %s", asked)
        process.send_signal(signal.SIGSTOP)
        wait_until(
            lambda: [line for line in carrying(attempt) if "sleep" in line] == [],
            description="the agent to be gone",
        )
        left = at_work.value("select extract(epoch from lease_until - now()) from jobs")
        assert left > 0
        wait_until(
            lambda: at_work.value("select lease_until < now() from jobs"),
            description="the lease's end",
        )
        assert rescue.rescue(at_work.conn, asked, attempt=None, limit=3) == "queued"
        assert at_work.run(asked, scripted()).state == "done"
        head = at_work.head()
        process.send_signal(signal.SIGCONT)
        process.wait(15)
    assert at_work.head() == head
    assert len(at_work.moves()) == 1
    assert at_work.job(asked).state == "done"


def test_a_worker_whose_lease_is_gone_begins_no_turn(
    at_work: AtWork, monkeypatch: pytest.MonkeyPatch
):
    at_work.configure(BATON_LEASE="1", BATON_RENEW_EVERY="60", BATON_CANCEL_POLL="5")

    def wait(point: str) -> None:
        if point == "workspace.begun":
            over = identity.now() + 1  # the claim was before this
            wait_until(lambda: identity.now() > over, description="the lease's end")

    monkeypatch.setattr(crash_points, "strike", wait)
    asked = at_work.ask(Build(project=P, user=U, prompt="begin"))
    assert at_work.run(asked, scripted()).error_class == "lease_lost"
    assert at_work.turns(asked) == []


def test_a_lease_is_renewed_for_as_long_as_the_turn_takes(at_work: AtWork):
    """However long the lease is: how often it is renewed follows."""
    at_work.configure(BATON_LEASE="6")
    ends = set[Any]()

    def renewed_twice() -> bool:
        ends.add(at_work.value("select lease_until from jobs"))
        return len(ends) == 3

    def slow(request: Any, **more: Any) -> Any:
        wait_until(renewed_twice, description="two renewals")
        return scripted()(request, **more)

    assert at_work.build("write a.txt: 1", agent=slow).state == "done"


def test_a_turn_whose_keeper_was_killed_leaves_nothing_behind(at_work: AtWork):
    at_work.configure(BATON_SANDBOX="off")
    asked = at_work.ask(Build(project=P, user=U, prompt="run: setsid sleep 300 & sleep 60"))
    with running(at_work, asked):
        attempt = at_work.value("select attempt from jobs where id = %s", asked)
        agent = wait_until(lambda: at_work.job(asked).agent_pid, description="the agent's pid")
        keeper = int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(keeper, signal.SIGKILL)
    assert carrying(attempt) == []
    job = at_work.job(asked)
    assert (job.state, job.error_class) == ("queued", "killed")


def test_a_hold_that_is_over_does_not_come_back_by_a_late_renewal(at_work: AtWork):
    asked = at_work.ask(Build(project=P, user=U, prompt="begin"))
    job = attempts.claim(
        at_work.conn,
        asked,
        attempt=uuid4(),
        runner=identity.runner("w"),
        limit=3,
        lease=timedelta(seconds=30),
    )
    assert job
    until = at_work.value("select lease_until from jobs")
    held = lease.Lease(job, trusted_until=identity.now() - 1)
    lease._ask(held, renew=True)  # pyright: ignore[reportPrivateUsage]
    assert at_work.value("select lease_until from jobs") == until
    assert held.reason() == "lease_lost"
