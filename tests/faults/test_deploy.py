"""Workers that are told to stop, and new ones beside old ones: nothing is lost, nothing is spent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from dev.stack.processes import look
from tests.acceptance.outside import Baton, baton_up
from tests.faults.agents import children
from tests.faults.conftest import Tally
from tests.invariants import violations
from tests.waiting import wait_until
from worker.client import Build

pytestmark = pytest.mark.timeout(360)

GONE = 2.0  # seconds after a worker's SIGKILL until nothing of it lives, as promised
PROMPT = "write a.txt: a\nrun: echo once | tee -a ran.txt\nrun: sleep {seconds}\nwrite b.txt: b"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baton]:
    """A stack whose workers are ended on purpose."""
    root = tmp_path_factory.mktemp("deploy")
    with baton_up(root, BATON_COMPACT="never", BATON_DRAIN_GRACE="20") as baton:
        yield baton


def begun(running: Baton, seconds: float) -> tuple[str, UUID]:
    """A build that is in the middle of its turn, and its project."""
    project = running.project()
    job = running.ask(Build(project=project, user="ann", prompt=PROMPT.format(seconds=seconds)))
    running.at_work(job, "sleep")
    return project, job


def whole(running: Baton, tally: Tally, project: str, job: UUID) -> None:
    """The build was done, once, and no attempt was spent on the way."""
    done = running.ended(job)
    assert (done["state"], done["attempts"]) == ("done", 1)
    place = running.workspace(project)
    assert {name: (place / name).read_text() for name in ("a.txt", "b.txt", "ran.txt")} == {
        "a.txt": "a",
        "b.txt": "b",
        "ran.txt": "once\n",
    }
    tally.ran()
    tally.check(violations(running.conn))


def stands(running: Baton) -> int:
    """The main process of the worker that the stack keeps alive."""
    pid = running.up.pid("worker")
    assert pid
    return pid


def online(running: Baton, pid: int) -> bool:
    """Whether that worker takes new jobs."""
    return bool(running.rows("select 1 from workers where pid = %s", pid))


@contextmanager
def another_worker(running: Baton) -> Generator["subprocess.Popen[bytes]"]:
    """A worker beside the one that the stack keeps alive."""
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-n", "new@%h"]
    with (running.root / "new.log").open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=running.root, env=running.up.env, stdout=log, stderr=log
        )
    try:
        wait_until(
            lambda: online(running, worker.pid), timeout=30, description="it to be ready"
        )
        yield worker
    finally:
        worker.terminate()
        worker.wait(60)


@pytest.mark.long
def test_a_worker_that_is_told_to_stop_lets_a_turn_end(running: Baton, tally: Tally):
    tally.fault = "SIGTERM of a worker: drain"
    project, job = begun(running, 2)
    worker = stands(running)
    os.kill(worker, signal.SIGTERM)
    whole(running, tally, project, job)
    attempts = running.rows("select attempt from turns where job_id = %s", job)
    assert len(attempts) == 1
    wait_until(
        lambda: running.up.pid("worker") not in (None, worker),
        timeout=30,
        description="a new worker",
    )


@pytest.mark.long
def test_a_second_signal_is_obeyed_at_once_and_the_turn_is_gone_on_from(
    running: Baton, tally: Tally
):
    tally.fault = "second SIGTERM: interrupt, go on elsewhere"
    project, job = begun(running, 8)
    running.at_work(job, "sleep")
    worker = look(stands(running))
    assert worker
    before = running.agents(job)
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: not online(running, worker.pid), description="the drain to begin")
    told = time.monotonic()
    os.kill(worker.pid, signal.SIGTERM)
    running.gone(before)
    tally.recovered(time.monotonic() - told)
    interrupted = running.until(job, "queued", "running", "done")
    assert interrupted["attempts"] <= 1
    whole(running, tally, project, job)
    (recovered,) = running.events(project, "turn.recovered")
    assert (recovered["body"]["what"], recovered["body"]["why"]) == ("partial", "drained")
    assert running.moves(project)[0]["source"] == "recovery"


@pytest.mark.long
def test_nothing_of_a_worker_outlives_its_main_process(running: Baton, tally: Tally):
    """Nobody but the kernel sees to it: this worker has no supervisor."""
    tally.fault = "SIGKILL of a worker's main process alone"
    running.up.supervisor.hold("worker")
    try:
        with another_worker(running) as new:
            project, job = begun(running, 8)
            before = [*running.agents(job), look(running.job(job)["pid"])]
            new.kill()
            told = time.monotonic()
            running.gone([process for process in before if process])
            tally.recovered(took := time.monotonic() - told)
            assert took <= GONE
    finally:
        running.up.supervisor.resume("worker")
    assert running.over(job)["rescues"] == 1
    whole(running, tally, project, job)


@pytest.mark.long
@pytest.mark.parametrize(("told", "deaths"), [("all processes", 0), ("a child alone", 1)])
def test_a_signal_to_all_processes_of_a_worker_is_a_deploy_and_to_one_child_a_death(
    running: Baton, tally: Tally, told: str, deaths: int
):
    tally.fault = f"SIGTERM of a worker: {told}"
    project, job = begun(running, 8)
    worker = stands(running)
    pool, at_work = [child.pid for child in children(worker)], running.job(job)["pid"]
    assert at_work in pool
    for pid in (*pool, worker) if told == "all processes" else (at_work,):
        os.kill(pid, signal.SIGTERM)
    whole(running, tally, project, job)
    assert running.job(job)["rescues"] == deaths
    (recovered,) = running.events(project, "turn.recovered")
    assert recovered["body"]["why"] == ("worker_died" if deaths else "drained")


@pytest.mark.long
def test_a_deploy_of_new_workers_beside_old_ones_loses_nothing(running: Baton, tally: Tally):
    tally.fault = "new workers beside old ones"
    first = begun(running, 3)
    with another_worker(running) as new:
        os.kill(stands(running), signal.SIGTERM)
        second = begun(running, 1)
        taken = running.row("select pid from jobs where id = %s", second[1])["pid"]
        assert parent(taken) == new.pid
        for project, job in (first, second):
            whole(running, tally, project, job)


def parent(pid: int) -> int:
    """The process that started that one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
