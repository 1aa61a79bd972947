"""Keeping processes alive: started again when they die, asked before they are killed."""

import errno
import os
import signal
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from dev.stack import processes
from dev.stack.supervisor import Supervisor
from tests.waiting import wait_until

Told = list[tuple[str, str]]

SLEEP = "sleep 1000"
STUBBORN = "sh -c 'trap \"\" TERM; echo deaf; while true; do sleep 1; done'"
ESCAPED = 'sh -c \'setsid sh -c "trap \\"\\" TERM; echo away; sleep 1000" & wait\''
FAMILY = "sh -c 'sleep 1000 & echo family; wait'"


def test_one_that_dies_is_started_again_at_once(tmp_path: Path):
    with _supervised({"one": SLEEP}, tmp_path) as (supervisor, told):
        first = _pid(supervisor, "one")
        supervisor.kill("one")
        second = wait_until(
            lambda: _pid(supervisor, "one", other_than=first),
            description="a new one",
        )
        assert second != first
        assert ("up", "one was ended by SIGKILL; starting it again now") in told


def test_one_that_keeps_dying_is_started_with_growing_pauses(tmp_path: Path):
    with _supervised({"one": "false"}, tmp_path) as (_, told):
        wait_until(lambda: len(told) >= 3, description="three deaths")
        assert [line for _, line in told[:3]] == [
            f"one ended with 1; starting it again {when}"
            for when in ("now", "in 0.5 s", "in 1 s")
        ]


def test_lines_are_told_with_the_name_of_who_said_them(tmp_path: Path):
    command = "printf 'whole line\\nno end'"
    with _supervised({"one": command}, tmp_path) as (supervisor, told):
        wait_until(lambda: ("one", "no end") in told, description="the line without an end")
        assert ("one", "whole line") in told
        assert supervisor.children["one"].log.read_text().startswith("whole line\nno end\n")


def test_what_cannot_be_written_to_the_log_costs_no_process(tmp_path: Path):
    with _supervised({"one": "sh -c 'sleep 0.2; echo said; sleep 1000'"}, tmp_path) as (
        supervisor,
        told,
    ):
        log = supervisor.children["one"].log
        log.unlink(missing_ok=True)
        log.mkdir()  # as good as a full disk
        first = _pid(supervisor, "one")
        wait_until(lambda: ("one", "said") in told, description="the line")
        supervisor.kill("one")
        assert _pid(supervisor, "one", other_than=first)


def test_what_the_system_refuses_is_tried_again(tmp_path: Path):
    refused = [OSError(errno.EAGAIN, "Resource temporarily unavailable")]

    def mend() -> None:
        if refused:
            raise refused.pop()

    with _supervised({"one": SLEEP}, tmp_path, mend=mend) as (supervisor, told):
        assert _pid(supervisor, "one")
        assert ("up", "Resource temporarily unavailable; trying again") in told


def test_the_shell_reads_the_command_and_makes_way(tmp_path: Path):
    command = "echo ${NOT_SET:-5555} ${GIVEN:-no}"
    with _supervised({"one": command}, tmp_path, GIVEN="yes") as (_, told):
        wait_until(lambda: ("one", "5555 yes") in told, description="the line")
    with _supervised({"one": SLEEP}, tmp_path) as (supervisor, _):
        pid = _pid(supervisor, "one")
        wait_until(
            lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n",
            description="the leader to be the program itself",
        )


def test_only_the_leader_is_asked_to_end(tmp_path: Path):
    command = (
        "python3 -c 'import os, signal, time, sys\n"
        "child = os.fork()\n"
        'signal.signal(15, lambda *_: (print("child" if not child else "leader", flush=True),'
        " sys.exit()))\n"
        "time.sleep(1) if not child else None\n"
        'print("set", flush=True)\n'
        "os.waitpid(child, 0) if child else time.sleep(0.5)'"
    )
    with _supervised({"one": command}, tmp_path) as (supervisor, told):
        wait_until(lambda: ("one", "set") in told, description="both to listen")
        supervisor.stop(5)
    assert ("one", "leader") in told
    assert ("one", "child") not in told


def test_one_that_will_not_end_is_killed_after_its_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dev.stack.supervisor.SECOND_TERM", 0.1)
    monkeypatch.setattr("dev.stack.supervisor.LAST_CALL", 0.1)
    with _supervised({"one": STUBBORN}, tmp_path) as (supervisor, told):
        wait_until(lambda: ("one", "deaf") in told, description="it to be deaf")
        left = _family(supervisor)
        begun = time.monotonic()
        supervisor.stop(1.0)
        assert time.monotonic() - begun > 1.0
    assert not any(processes.alive(process) for process in left)


def test_in_a_hurry_there_is_no_grace(tmp_path: Path):
    with _supervised({"one": STUBBORN}, tmp_path) as (supervisor, told):
        wait_until(lambda: ("one", "deaf") in told, description="it to be deaf")
        left = _family(supervisor)
        supervisor.hurry.set()
        begun = time.monotonic()
        supervisor.stop(60)
        assert time.monotonic() - begun < 5.0
    assert not any(processes.alive(process) for process in left)


def test_one_that_left_its_group_is_killed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dev.stack.supervisor.OWN_END", 0.1)
    with _supervised({"one": ESCAPED}, tmp_path) as (supervisor, told):
        wait_until(lambda: ("one", "away") in told, description="it to be away")
        left = _family(supervisor)
        assert len({os.getsid(process.pid) for process in left}) == 2, "it has left the session"
        supervisor.kill("one")  # now nobody is its parent
        begun = time.monotonic()
        supervisor.stop(0.1)
        assert time.monotonic() - begun < 5, "it is killed here, not by the patient guard"
    assert not any(processes.alive(process) for process in left)


def test_what_a_dead_leader_left_in_its_group_is_killed_before_it_starts_again(tmp_path: Path):
    with _supervised({"one": FAMILY}, tmp_path) as (supervisor, told):
        wait_until(lambda: ("one", "family") in told, description="the family")
        left = _family(supervisor)
        supervisor.kill("one")
        wait_until(lambda: told.count(("one", "family")) == 2, description="the next family")
        assert not any(processes.alive(process) for process in left)


def test_the_last_ones_end_after_the_others(tmp_path: Path):
    command = "sh -c 'trap \"echo bye; exit\" TERM; echo hi; while true; do sleep 0.1; done'"
    commands = {"model": command, "one": command}
    with _supervised(commands, tmp_path, last=["model"]) as (supervisor, told):
        wait_until(lambda: len(told) == 2, description="both to be there")
        supervisor.stop(5)
    assert [name for name, line in told if line == "bye"] == ["one", "model"]


def test_one_that_is_held_stays_down_until_it_is_resumed(tmp_path: Path):
    with _supervised({"one": SLEEP}, tmp_path) as (supervisor, told):
        first = _pid(supervisor, "one")
        supervisor.hold("one")
        wait_until(lambda: supervisor.children["one"].popen is None, description="its burial")
        assert told == [], "nobody says that it is started again"
        supervisor.resume("one")
        assert _pid(supervisor, "one") != first


def test_a_paused_one_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dev.stack.supervisor.SECOND_TERM", 0.1)
    monkeypatch.setattr("dev.stack.supervisor.LAST_CALL", 0.1)
    with _supervised({"one": SLEEP}, tmp_path) as (supervisor, _):
        os.kill(_pid(supervisor, "one"), signal.SIGSTOP)
        left = _family(supervisor)
        supervisor.stop(0.1)
    assert not any(processes.alive(process) for process in left)


@contextmanager
def _supervised(
    commands: Mapping[str, str],
    root: Path,
    *,
    last: list[str] | None = None,
    mend: Callable[[], None] = lambda: None,
    **env: str,
) -> Generator[tuple[Supervisor, Told]]:
    told: Told = []

    def say(name: str, line: str) -> None:
        told.append((name, line))

    supervisor = Supervisor(
        commands, env={**os.environ, **env}, cwd=root, say=say, last=last or [], mend=mend
    )
    supervisor.start()
    try:
        yield supervisor, told
    finally:
        supervisor.stop(1.0)


def _pid(supervisor: Supervisor, name: str, *, other_than: int = 0) -> int:
    find: Callable[[], int | None] = lambda: (  # noqa: E731
        process.pid
        if (process := supervisor.children[name].process) and process.pid != other_than
        else None
    )
    return wait_until(find, description=f"{name} to run") or 0


def _family(supervisor: Supervisor) -> list[processes.Process]:
    leaders = [child.process for child in supervisor.children.values() if child.process]
    return [*leaders, *(one for leader in leaders for one in processes.descendants(leader.pid))]
