"""A turn uses no more of its host than it may, in its box and without one."""

import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from tests.boxes import kept
from tests.machine import needs_bubblewrap, needs_control_groups
from tests.running import AtWork
from tests.waiting import wait_until
from worker.process import identity
from worker.sandbox import bounds, box, groups

MIB = 2**20
BOXED = pytest.mark.parametrize(
    "sandbox", ["off", pytest.param("auto", marks=needs_bubblewrap)]
)
MANY = "for i in $(seq 100); do sleep 60 & done; sleep 60"
LARGE = "x = bytearray(400 * 2**20); import time; time.sleep(60)"
BOMB = """
import os, time
made = 0
try:
    while made < 2000:
        if os.fork() == 0:
            time.sleep(60)
        made += 1
except OSError:
    pass
print(made, flush=True)
os.kill(0, 9)
"""


@pytest.fixture
def bounded(at_work: AtWork) -> AtWork:
    at_work.configure(
        BATON_LIMIT_MEMORY=str(256 * MIB),
        BATON_LIMIT_PROCESSES="64",
        BATON_LIMIT_FILE=str(64 * MIB),
        BATON_LIMIT_OPEN_FILES="300",
        BATON_LIMIT_CPU="100",
    )
    at_work.place.mkdir(parents=True)
    return at_work


@contextmanager
def shell(script: str, place: Path, sandbox: str) -> Generator["subprocess.Popen[bytes]"]:
    make = box.ways("bwrap", 61000) if sandbox == "auto" else iter(())
    way = next(make, None)
    with kept(way.box if way else without, script, place) as keeper:
        yield keeper


def without(workspace: Path, *, own: Path, cli: Path, writable: bool) -> box.Box:
    return box.Box(limits=box.limits())


@BOXED
@pytest.mark.parametrize(
    ("script", "setting"),
    [
        (MANY, "BATON_LIMIT_PROCESSES"),
        (f'{sys.executable} -c "{LARGE}"', "BATON_LIMIT_MEMORY"),
    ],
)
def test_a_turn_that_uses_too_much_is_ended(
    bounded: AtWork, sandbox: str, script: str, setting: str
):
    with shell(script, bounded.place, sandbox) as keeper:
        _, told = keeper.communicate()
    assert keeper.returncode == bounds.EXCEEDED
    assert told.decode().startswith("keeper: The agent used more than ")
    assert f"or raise {setting}." in told.decode()


@needs_bubblewrap
def test_a_program_that_forks_without_end_is_stopped_before_anybody_looks(bounded: AtWork):
    (bounded.place / "bomb.py").write_text(BOMB)
    with shell(f"{sys.executable} bomb.py", bounded.place, "auto") as keeper:
        said, _ = keeper.communicate()
    assert 64 < int(said) < 1000


@BOXED
def test_files_and_time_of_a_process_have_limits_too(bounded: AtWork, sandbox: str):
    script = (
        "(head -c 90000000 /dev/zero > big); stat -c %s big; ulimit -Hn; ulimit -t; ulimit -c"
    )
    with shell(script, bounded.place, sandbox) as keeper:
        said, _ = keeper.communicate()
    assert said.decode().split() == [str(64 * MIB), "300", "100", "0"]


@pytest.mark.long  # the kernel counts the agents of tests that run beside it, too
@BOXED
def test_people_are_told_which_limit_a_job_has_met(bounded: AtWork, sandbox: str):
    bounded.configure(BATON_SANDBOX=sandbox)
    job = bounded.build(f"run: {MANY}")
    assert (job.state, job.error_class, job.attempts) == ("failed", "limit_exceeded", 1)
    assert job.error == (
        "The agent used more than 64 processes and threads at a time: ask for less at once,"
        " or raise BATON_LIMIT_PROCESSES."
    )
    assert bounded.head() is None


@BOXED
def test_an_agent_works_within_the_limits_that_are_the_default(at_work: AtWork, sandbox: str):
    at_work.configure(BATON_SANDBOX=sandbox)
    job = at_work.build("write a.txt: one\nrun: cat /proc/$PPID/oom_score_adj > first.txt")
    assert (job.state, job.error) == ("done", None)
    assert (at_work.place / "first.txt").read_text() == f"{bounds.FIRST_TO_GO}\n"


@pytest.fixture
def delegated() -> Iterator[Path]:
    """A group in which a worker of this process's may make others, as systemd leaves one."""
    (own := CGROUPS / f"test-{uuid4()}").mkdir()
    os.setxattr(own, groups.DELEGATED, b"1")
    (worker := own / "worker").mkdir()
    before = (CGROUPS / "cgroup.procs").parent
    (worker / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield own
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        for group in (*own.glob("*/"), own):
            groups.Group(str(group)).end()


CGROUPS = Path(groups.mounted() or "/nowhere")


@needs_control_groups
def test_nothing_leaves_the_control_group_of_its_turn(bounded: AtWork, delegated: Path):
    script = "(env -i setsid sleep 300 &) ; echo up; exec sleep 301"
    with shell(script, bounded.place, "off") as keeper:
        assert keeper.stdout
        assert keeper.stdout.readline() == b"up\n"
        (turn,) = delegated.glob("turn-*")
        inside = [int(pid) for pid in (turn / "cgroup.procs").read_text().split()]
        assert len(inside) == 2
        keeper.kill()
        keeper.wait()
        groups.end_those_of_the_dead()  # as a worker does when a turn is over
        wait_until(lambda: not any(map(identity.started, inside)), description="its end")
    assert [each.name for each in delegated.glob("*/")] == ["worker"]


@needs_control_groups
def test_the_control_group_of_a_turn_goes_with_it(bounded: AtWork, delegated: Path):
    with shell("echo up", bounded.place, "off") as keeper:
        assert keeper.communicate()[0] == b"up\n"
    assert [each.name for each in delegated.glob("*/")] == ["worker"]
