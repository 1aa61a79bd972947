"""How soon another attempt begins: after a kill on this host, and after another's silence.

With the lease that is the default, and every process of `baton up`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest

from db.jobs import jobs
from tests.acceptance.outside import Baton, baton_up
from tests.conftest import keys_without_end
from tests.faults.conftest import Tally
from tests.invariants import violations
from tests.machine import needs_pid_namespaces
from tests.waiting import wait_until
from worker.client import Build

pytestmark = [pytest.mark.long, pytest.mark.timeout(800)]
KILLS = 8
SAME_HOST, OTHER_HOST = 3.0, 40.0  # seconds: what is promised
PROMPT = "write a.txt: 1\nrun: setsid sleep 301 & sleep 300"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baton]:
    root = tmp_path_factory.mktemp("hosts")
    with baton_up(root, BATON_LEASE="30", BATON_RENEW_EVERY="10") as baton:
        yield baton


def begun(baton: Baton) -> UUID:
    """A job whose agent is at work."""
    asked = baton.ask(Build(project=baton.project(), user="ann", prompt=PROMPT))
    baton.at_work(asked, "sleep")
    return asked


def until_another_begins(baton: Baton, asked: UUID, attempt: UUID, within: float) -> float:
    """Seconds until another attempt has the job; nothing of the dead one lives by then."""
    began = time.monotonic()
    wait_until(
        lambda: (
            baton.job(asked)["attempt"] != attempt and baton.job(asked)["state"] == "running"
        ),
        timeout=within + 30,
        description=f"another attempt at {baton.told(asked)}",
    )
    return time.monotonic() - began


def over(baton: Baton, asked: UUID, tally: Tally) -> None:
    jobs.cancel(baton.conn, asked)
    baton.ended(asked)
    wrong = violations(baton.conn, ended=True, stored=True) + baton.in_step.wrong
    tally.check(wrong + keys_without_end(baton.up.redis_url))


def test_a_killed_workers_job_begins_again_within_three_seconds(up: Baton, tally: Tally):
    tally.fault = "pool child, SIGKILL in mid-turn: until another attempt begins"
    for _ in range(KILLS):
        asked = begun(up)
        job, carried = up.job(asked), up.agents(asked)
        os.kill(job["pid"], signal.SIGKILL)
        tally.recovered(until_another_begins(up, asked, job["attempt"], SAME_HOST))
        up.gone(carried)
        tally.ran()
        over(up, asked, tally)
    assert sorted(tally.recoveries)[KILLS // 2] <= SAME_HOST


@contextmanager
def another_host(baton: Baton) -> Generator["subprocess.Popen[bytes]"]:
    """A worker that this host's processes cannot see: it has a pid namespace of its own."""
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    celery = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "-n", "other@%h"]
    log = (baton.root / "other.log").open("wb")
    with (
        log,
        subprocess.Popen(
            [*apart, *celery], env=baton.up.env, cwd=baton.root, stdout=log, stderr=log
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


@needs_pid_namespaces
def test_a_silent_hosts_job_begins_again_within_forty_seconds(up: Baton, tally: Tally):
    tally.fault = "another host, all its processes killed: until another attempt begins"
    tally.simulated = "the host: a pid namespace"
    up.up.supervisor.hold("worker", within=20)
    with another_host(up) as host:
        asked = begun(up)
        job, carried = up.job(asked), up.agents(asked)
        up.up.supervisor.resume("worker")
        host.kill()
        tally.recovered(until_another_begins(up, asked, job["attempt"], OTHER_HOST))
        up.gone(carried)
    tally.ran()
    over(up, asked, tally)
    assert tally.recoveries[0] <= OTHER_HOST
