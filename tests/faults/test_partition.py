"""A worker that is cut off from Postgres, stopped or killed: its agent is dead in time.

Dead before another attempt may begin, and with it every child of its tools, whatever
session those were put into.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from uuid import UUID

import pytest

from db.jobs import jobs, rescue
from dev.agents.scripted import scripted
from dev.stack.processes import Process, look
from tests.faults.apart import STUBBORN, living, relay
from tests.faults.conftest import Tally
from tests.faults.driving import at_its_sleep, drive, program, through_a_wire, wrong
from tests.machine import needs_bubblewrap, needs_iptables
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from tests.workers import Worker, worker
from worker.client import Build
from worker.relay import rescue_once
from worker.sandbox.keeper import PR_SET_CHILD_SUBREAPER

SANDBOXES = ["off", pytest.param("auto", marks=[needs_bubblewrap, pytest.mark.long])]
pytestmark = pytest.mark.timeout(600)
# A git that comes to no end when it is to take the workspace's files in, nor what it begins.
SLOW_GIT = """#!/bin/sh
case " $* " in
*" add "*) sleep 304 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait ;;
esac
exec {git} "$@"
"""


Switch = Callable[[Worker, bool], None]  # cut that worker off, or no more
Way = Callable[[AtWork, str], AbstractContextManager[Switch]]


@contextmanager
def stopped(at_work: AtWork, dsn: str) -> Generator[Switch]:
    """SIGSTOP."""

    def switch(worker: Worker, on: bool) -> None:
        worker.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    yield switch


@contextmanager
def deaf(at_work: AtWork, dsn: str) -> Generator[Switch]:
    """A way to Postgres on which nothing is answered, while it is switched on."""
    with through_a_wire(at_work, dsn) as wire:

        def switch(_: Worker, on: bool) -> None:
            wire.deaf = on

        yield switch


@contextmanager
def dropped(at_work: AtWork, dsn: str) -> Generator[Switch]:
    """A way to Postgres whose packets the kernel drops, while it is switched on."""
    with through_a_wire(at_work, dsn) as wire, ExitStack() as rules:
        port = wire.url.rpartition("/")[0].rpartition(":")[2]
        rule = ["-p", "tcp", "--dport", port, "-j", "DROP"]

        def switch(_: Worker, on: bool) -> None:
            if on:
                subprocess.run(["iptables", "-I", "OUTPUT", *rule], check=True)
                rules.callback(subprocess.run, ["iptables", "-D", "OUTPUT", *rule], check=True)
            else:
                rules.close()

        yield switch


@pytest.mark.parametrize(
    ("way", "sandbox"),
    [
        pytest.param(stopped, "off", id="stopped-off", marks=pytest.mark.long),
        pytest.param(
            stopped, "auto", id="stopped-auto", marks=[needs_bubblewrap, pytest.mark.long]
        ),
        pytest.param(deaf, "off", id="deaf-off"),
        pytest.param(deaf, "auto", id="deaf-auto", marks=[needs_bubblewrap, pytest.mark.long]),
        pytest.param(dropped, "off", id="drop-off", marks=[needs_iptables, pytest.mark.long]),
        pytest.param(
            dropped,
            "auto",
            id="drop-auto",
            marks=[needs_iptables, needs_bubblewrap, pytest.mark.long],
        ),
    ],
)
def test_a_worker_that_is_stopped_or_cut_off_has_no_agent_when_its_lease_ends(
    at_work: AtWork, dsn: str, way: Way, sandbox: str, tally: Tally
):
    how = "stopped" if way is stopped else f"cut off from Postgres ({way.__name__})"
    tally.fault = f"worker {how}, box {sandbox}"
    at_work.configure(BATON_LEASE="6", BATON_RENEW_EVERY="0.5", BATON_SANDBOX=sandbox)
    asked = at_work.ask(Build(project=P, user=U, prompt=STUBBORN))
    with way(at_work, dsn) as cut_off, worker(asked) as process:
        attempt = at_its_sleep(at_work, asked)
        began = time.monotonic()
        cut_off(process, True)
        last = last_seen(at_work, attempt)
        tally.recovered(time.monotonic() - began)
        assert last < lease_end(at_work, asked)
        at_work.configure(DATABASE_URL=dsn)
        taken_over(at_work, asked)
        ended = at_work.rows("select * from jobs, turns order by jobs.id, turns.id")
        cut_off(process, False)
        process.wait(120)
        assert at_work.rows("select * from jobs, turns order by jobs.id, turns.id") == ended
    tally.ran()
    tally.check(wrong(at_work))


def last_seen(at_work: AtWork, attempt: UUID) -> float:
    """The last moment, on Postgres' clock, at which something of the attempt was alive."""
    seen = 0.0

    def dead() -> bool:
        nonlocal seen
        now = at_work.value("select extract(epoch from clock_timestamp())::float8")
        if alive := living(attempt):
            seen = now
        return not alive

    wait_until(dead, timeout=20, description="all of it to be dead")
    return seen


def lease_end(at_work: AtWork, job_id: UUID) -> float:
    return at_work.value(
        "select extract(epoch from lease_until)::float8 from jobs where id = %s", job_id
    )


def taken_over(at_work: AtWork, asked: UUID) -> None:
    """The lease's end is waited for, and another attempt does the job."""
    wait_until(
        lambda: asked in rescue.expired(at_work.conn), timeout=20, description="the lease's end"
    )
    assert rescue.rescue(at_work.conn, asked, attempt=None, limit=3) == "queued"
    assert at_work.run(asked, scripted()).state == "done"
    drive(at_work, asked, alone=True)


@pytest.mark.parametrize("sandbox", SANDBOXES)
def test_nothing_is_left_two_seconds_after_a_worker_was_killed(
    at_work: AtWork, sandbox: str, long: bool, tally: Tally
):
    tally.fault = f"worker, SIGKILL: until nothing of it lives, box {sandbox}"
    at_work.configure(BATON_SANDBOX=sandbox)
    for n in range(4 if long else 1):
        asked = at_work.ask(Build(project=f"p{n}", user=U, prompt=STUBBORN))
        with worker(asked) as process:
            attempt = at_its_sleep(at_work, asked)
            began = time.monotonic()
            process.send_signal(signal.SIGKILL)
            process.wait()
            gone(attempt, began, within=2 if long else 20, tally=tally)
        assert rescue.rescue(at_work.conn, asked, attempt=attempt, limit=3) == "queued"
        assert at_work.run(asked, scripted()).state == "done"
        drive(at_work, asked, alone=True)
    tally.check(wrong(at_work))


def gone(attempt: UUID, began: float, *, within: float, tally: Tally) -> None:
    """All of the attempt is dead, and was so in time."""
    wait_until(lambda: not living(attempt), timeout=within + 10, description="all to be dead")
    took = time.monotonic() - began
    tally.ran()
    tally.recovered(took)
    tally.check([f"processes lived for {took:.1f} s"] if took > within else [])


def test_the_relay_ends_what_outlived_worker_and_keeper(
    at_work: AtWork, long: bool, tally: Tally
):
    tally.fault = "worker and keeper, SIGKILL together, no box: until nothing lives"
    at_work.configure(BATON_SANDBOX="off")
    with relay():
        for n in range(4 if long else 1):
            asked = at_work.ask(Build(project=f"p{n}", user=U, prompt=STUBBORN))
            with worker(asked) as process:
                attempt = at_its_sleep(at_work, asked)
                keeper = keeper_of(process.pid, attempt)
                began = time.monotonic()
                process.send_signal(signal.SIGSTOP)  # so that neither sees the other die
                os.kill(keeper.pid, signal.SIGKILL)
                process.send_signal(signal.SIGKILL)
                process.wait()
                gone(attempt, began, within=10, tally=tally)
            wait_until(
                lambda: at_work.job(asked).state == "queued",  # noqa: B023
                description="the job to be taken back",
            )
            wait_until(  # the relay may hold its row just then: the message is sent again
                lambda: at_work.run(asked, scripted()).state == "done",  # noqa: B023
                description="the job to be done",
            )
            drive(at_work, asked, alone=True)
    tally.check(wrong(at_work))


@pytest.mark.long
def test_a_keeper_that_is_stopped_lets_nothing_outlive_the_lease(at_work: AtWork, tally: Tally):
    """Also not what has cleaned its environment and has a session of its own."""
    tally.fault = "keeper, SIGSTOP, and its lease ends, no box"
    at_work.configure(BATON_SANDBOX="off", BATON_LEASE="9", BATON_RENEW_EVERY="60")
    prompt = "run: env -i setsid sleep 303 & echo $! > pid; sleep 60"
    asked = at_work.ask(Build(project=P, user=U, prompt=prompt))
    with worker(asked) as process:
        attempt = at_its_sleep(at_work, asked)
        ends, cleaned = lease_end(at_work, asked), int((at_work.place / "pid").read_text())
        os.kill(keeper_of(process.pid, attempt).pid, signal.SIGSTOP)
        assert look(cleaned)
        last = last_seen(at_work, attempt)
        assert look(cleaned) is None
        assert last < ends
        process.wait(20)
    tally.ran()
    jobs.cancel(at_work.conn, asked)


@needs_bubblewrap
def test_a_box_does_not_outlive_a_worker_whose_keeper_is_stopped(at_work: AtWork, tally: Tally):
    tally.fault = "keeper, SIGSTOP, then worker, SIGKILL: until nothing lives, box auto"
    at_work.configure(BATON_SANDBOX="auto")
    asked = at_work.ask(Build(project=P, user=U, prompt=STUBBORN))
    with inheriting(), worker(asked) as process:
        attempt = at_its_sleep(at_work, asked)
        keeper = keeper_of(process.pid, attempt).pid
        os.kill(keeper, signal.SIGSTOP)
        began = time.monotonic()
        process.send_signal(signal.SIGKILL)
        process.wait()
        gone(attempt, began, within=2, tally=tally)
        with suppress(ChildProcessError):  # another part of this process was quicker
            os.waitpid(keeper, 0)
    jobs.cancel(at_work.conn, asked)


@contextmanager
def inheriting() -> Generator[None]:
    """What loses its parent becomes this process's child, as in a container its first one's.
    (What init inherits from another session, and is stopped, the kernel lets go on.)"""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


def test_git_does_not_outlive_its_worker(at_work: AtWork, tmp_path: Path, tally: Tally):
    tally.fault = "worker, SIGKILL, while git writes the workspace: until git is dead"
    slow, pids = tmp_path / "bin" / "git", tmp_path / "pids"
    slow.parent.mkdir()
    slow.write_text(SLOW_GIT.format(git=shutil.which("git"), pids=pids))
    slow.chmod(0o755)
    path = f"{slow.parent}:{os.environ['PATH']}"
    asked = at_work.ask(Build(project=P, user=U, prompt="write a.txt: 1"))
    with worker(asked, PATH=path) as process:
        wait_until(pids.exists, timeout=30, description="git at work")
        began = time.monotonic()
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = [int(pid) for pid in pids.read_text().split()]
    if shutil.which("setpriv"):
        wait_until(lambda: look(left[0]) is None, description="git to end with its worker")
    wait_until(rescue_once, description="the job to be taken back")
    assert [pid for pid in left if look(pid)] == []
    assert at_work.job(asked).state == "queued"
    tally.ran()
    tally.recovered(time.monotonic() - began)
    drive(at_work, asked, alone=True)
    assert at_work.job(asked).state == "done"
    tally.check(wrong(at_work))


def keeper_of(worker_pid: int, attempt: UUID) -> Process:
    """The process of the attempt that is the worker's own child."""

    def parent(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    (found,) = [one for one in living(attempt) if parent(one.pid) == worker_pid]
    assert program(found.pid).startswith("python")
    return found
