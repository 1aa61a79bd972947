"""A worker whose clock is wrong by hours: every decision is Postgres' clock's, or monotonic."""

import ast
import os
import random
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from claude_agent_sdk import ResultError

from db.jobs import jobs
from tests.faults.apart import relay, started, worker_of_another_time
from tests.faults.conftest import Tally
from tests.faults.driving import at_its_sleep, drive, wrong
from tests.machine import needs_compiler
from tests.running import AtWork, U
from tests.waiting import wait_until
from worker.agent.failures import Report, failure
from worker.client import Build
from worker.job.run import Ran

SOURCE = Path(__file__).with_name("skew.c")
CHECKOUT = Path(__file__).parents[2]
HOURS = 3600
WALL = {  # what reads the wall clock of Python
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime"),
    *("time.CLOCK_REALTIME", "time.CLOCK_TAI"),
    *("datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
}


# What people look at: "2 h ago", of the clock that they have before them.
# And tickets for browsers and webhooks, which hold the moment of their signature.
SHOWN = {
    *("worker/cli/moments.py", "worker/cli/watch.py", "worker/cli/jobs.py"),
    *("worker/live/tickets.py", "worker/webhooks/signing.py"),
}


def test_no_decision_of_the_product_asks_the_wall_clock():
    """Not one call beyond what is shown: deadlines are Postgres' `now()`, waits are monotonic, ages of files are by
    the clock of their file system, and a provider's moment is handed on to Postgres."""
    found = [
        f"{file.relative_to(CHECKOUT)}:{node.lineno} {ast.unparse(node)}"
        for layer in ("config", "db", "worker", "tasks")
        for file in sorted((CHECKOUT / layer).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and _last_two(node) in WALL
        if str(file.relative_to(CHECKOUT)) not in SHOWN
    ]
    assert found == []


def _last_two(node: ast.Attribute) -> str:
    return ".".join(ast.unparse(node).split(".")[-2:])


@pytest.fixture(scope="session")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that makes a process's clock wrong by SKEW seconds."""
    library = tmp_path_factory.mktemp("skew") / "skew.so"
    command = ["cc", "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-o", str(library)]
    subprocess.run([*command, str(SOURCE)], check=True)
    return str(library)


@pytest.mark.long
@needs_compiler
@pytest.mark.timeout(360)
def test_a_wrong_clock_changes_nothing(
    at_work: AtWork, skewed: str, long: bool, tally: Tally, seed: int
):
    tally.fault = "clock of worker and relay wrong by 5 h, each the other way"
    tally.simulated = "by a library that is loaded before libc"
    skews = [5 * HOURS, -5 * HOURS]
    for n, skew in enumerate(skews if long else [random.Random(seed).choice(skews)]):
        theirs = {"LD_PRELOAD": skewed, "SKEW": str(skew)}
        with relay(LD_PRELOAD=skewed, SKEW=str(-skew)):
            leases_hold(at_work, f"lease{n}", theirs)
            tally.ran()
            if long:
                pauses_are_right(at_work, f"pause{n}", theirs)
                the_dead_are_found(at_work, f"dead{n}", theirs, tally)
                tally.ran(2)
    tally.check(wrong(at_work))


def ask(at_work: AtWork, project: str, prompt: str) -> UUID:
    return at_work.ask(Build(project=project, user=U, prompt=prompt))


def leases_hold(at_work: AtWork, project: str, theirs: dict[str, str]) -> None:
    """A turn that takes longer than the lease is left to its worker."""
    at_work.configure(BATON_LEASE="5", BATON_RENEW_EVERY="0.5")
    asked = ask(at_work, project, "run: sleep 6\nsay done")
    with worker_of_another_time(
        asked, BATON_LEASE="5", BATON_RENEW_EVERY="0.5", **theirs
    ) as process:
        process.wait(150)
    job = at_work.job(asked)
    assert (job.state, job.attempts, job.rescues) == ("done", 1, 0)
    assert job.finished_at
    assert at_work.value("select abs(extract(epoch from now() - %s)) < 60", job.finished_at)
    drive(at_work, asked, alone=True)


def pauses_are_right(at_work: AtWork, project: str, theirs: dict[str, str]) -> None:
    """A job that failed waits for seconds, one of a limited credential for a minute."""
    asked = ask(at_work, project, "say done")
    for fault, longest in (("500", 15), ("429", 60)):
        at_work.model.fault(fault, times=-1, retry=False)
        with worker_of_another_time(asked, BATON_BACKOFF_FIRST="15", **theirs) as process:
            process.wait(150)
        at_work.model.clear_faults()
        state, pause = at_work.rows(
            "select state, extract(epoch from run_at - now())::float8 from jobs where id = %s",
            asked,
        )[0]
        assert state == ("queued" if fault == "500" else "parked")
        assert -10 < pause <= longest
        at_work.conn.execute("update jobs set run_at = now() where id = %s", (asked,))
        at_work.conn.execute("delete from limits")
    drive(at_work, asked, alone=True)


def the_dead_are_found(
    at_work: AtWork, project: str, theirs: dict[str, str], tally: Tally
) -> None:
    """A killed worker's job is taken back at once."""
    asked = ask(at_work, project, "run: sleep 60\nsay done")
    with worker_of_another_time(asked, BATON_LEASE="30", **theirs) as process:
        at_its_sleep(at_work, asked)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        wait_until(
            lambda: at_work.job(asked).state == "queued",
            timeout=20,
            description="the job to be taken back",
        )
        tally.recovered(time.monotonic() - began)
    jobs.cancel(at_work.conn, asked)


@needs_compiler
def test_a_worker_of_the_future_sweeps_nothing_that_is_new(
    at_work: AtWork, skewed: str, tmp_path: Path, tally: Tally
):
    tally.fault = "clock wrong by 30 h: directories of turns that run are not swept"
    ours = tmp_path / "agent" / "tmp" / "running"
    ours.mkdir(parents=True)
    old = tmp_path / "agent" / "tmp" / "old"
    old.mkdir()
    os.utime(old, (0, 0))
    sweep = "from worker.cleanup.litter import sweep_directories as sweep; raise SystemExit(sweep())"
    home = {"BATON_AGENT_HOME": str(tmp_path / "agent")}
    with started("-c", sweep, LD_PRELOAD=skewed, SKEW=str(30 * HOURS), **home) as process:
        assert process.wait(20) == 1
    assert ours.is_dir()
    assert not old.exists()
    tally.ran()


def test_a_plans_limit_ends_by_the_clock_of_postgres(at_work: AtWork, tally: Tally):
    tally.fault = "a provider's limit that ends at a moment, and no clock to trust"
    until = datetime.fromtimestamp(at_work.value("select extract(epoch from now())::int"), UTC)
    until += timedelta(hours=2)

    def limited(*_: object, **__: object) -> object:
        report = Report(limit_ends_at=int(until.timestamp()), error_kind="rate_limit")
        raise failure(ResultError("limited"), report)

    asked = ask(at_work, "limited", "say 1")
    assert at_work.run(asked, limited) == Ran(  # pyright: ignore[reportArgumentType]
        "waits", "rate_limit", at_work.job(asked).error
    )
    assert at_work.job(asked).run_at == until
    assert at_work.value("select until from limits") == until
    at_work.conn.execute("delete from limits")
    drive(at_work, asked, alone=True)
    tally.ran()
    tally.check(wrong(at_work))
