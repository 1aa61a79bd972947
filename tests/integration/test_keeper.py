"""The keeper: no agent outlives its lease or its worker, nor anything the agent began."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import wait_until
from worker.process import identity
from worker.sandbox import environment, keeper
from worker.sandbox.leash import KEEPER, Box, Leash


@contextmanager
def kept(script: str, tmp_path: Path, **env: str) -> Generator[subprocess.Popen[bytes]]:
    """A keeper whose agent is a shell script."""
    program = tmp_path / "agent"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    command = [sys.executable, "-I", "-S", str(KEEPER)]
    around = {"PATH": os.environ["PATH"], "BATON_CLI": str(program), **env}
    with subprocess.Popen(command, env=around, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 3", 3),
        ("kill -9 $$", 137),
        ("kill -15 $$", 143),
    ],
)
def test_the_agents_end_is_the_keepers(tmp_path: Path, script: str, code: int):
    with kept(script, tmp_path) as process:
        assert process.wait(5) == code


def test_a_program_that_is_missing_is_told_of(tmp_path: Path):
    around = {"PATH": os.environ["PATH"], "BATON_CLI": "/nowhere/claude"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(KEEPER)],
        env=around,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 127
    assert done.stderr.startswith("keeper: cannot start /nowhere/claude")


def test_a_directory_that_cannot_be_handed_over_is_told_of_and_nothing_starts(tmp_path: Path):
    box = Box(owner=4242, places=("/nowhere",))
    around = {"PATH": os.environ["PATH"], "BATON_CLI": "/bin/echo", **box.environ}
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(KEEPER)],
        env=around,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (126, "")
    assert (
        done.stderr == "keeper: cannot give /nowhere to uid 4242: No such file or directory\n"
    )


def test_what_the_agent_leaves_behind_is_killed(tmp_path: Path):
    with kept(
        f"setsid sleep 300 & echo $! > {tmp_path}/pid; (setsid sleep 301 &) ; exit 0", tmp_path
    ) as process:
        assert process.wait(5) == 0
    assert identity.started(int((tmp_path / "pid").read_text())) is None


def test_what_a_killed_orphan_took_is_in_the_keepers_books(tmp_path: Path):
    work = f"sum(range(10**7)); open('{tmp_path}/over', 'w'); import time; time.sleep(300)"
    until = f"until test -e {tmp_path}/over; do sleep 0.01; done"
    before = processors()
    with kept(f'({sys.executable} -S -c "{work}" &)\n{until}', tmp_path) as process:
        assert process.wait(60) == 0
    of_keeper = processors() - before
    subprocess.run([sys.executable, "-S", "-c", "sum(range(10**7))"], check=True)
    assert of_keeper > (processors() - before - of_keeper) * 0.7


def processors() -> float:
    """Seconds that the children that were waited for have computed, theirs included."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def test_a_keeper_that_is_not_fed_kills(tmp_path: Path):
    leash = Leash("test", identity.now() + 0.5)
    env = leash.environ
    env.pop("BATON_CLI")
    began = time.monotonic()
    with kept("sleep 300", tmp_path, **env) as process:
        assert process.wait(5) == 137
        assert time.monotonic() - began > 0.4
    leash.close()


def test_a_start_that_took_long_is_not_added_to_the_lease(tmp_path: Path):
    leash = Leash("test", identity.now() + 0.3)
    env = leash.environ
    env.pop("BATON_CLI")
    wait_until(
        lambda: identity.now() > float(env["BATON_UNTIL"]), description="the lease's end"
    )
    with kept(f"touch {tmp_path}/begun; sleep 300", tmp_path, **env) as process:
        late = identity.now() - 0.1
        code = wait_until(lambda: fed(leash, process, late), timeout=5, description="its end")
        assert code == 137
    assert not (tmp_path / "begun").exists()
    leash.close()


def test_a_start_that_outlasted_a_renewal_begins_the_agent(tmp_path: Path):
    leash = Leash("test", identity.now() - 1)
    env = leash.environ
    env.pop("BATON_CLI")
    with kept("exit 5", tmp_path, **env) as process:
        code = wait_until(lambda: fed(leash, process), timeout=5, description="its end")
        assert code == 5
    leash.close()


def test_a_keeper_that_is_fed_lets_the_agent_go_on(tmp_path: Path):
    leash = Leash("test", identity.now() + 0.4)
    env = leash.environ
    env.pop("BATON_CLI")
    with kept("sleep 1.2; exit 5", tmp_path, **env) as process:
        code = wait_until(lambda: fed(leash, process), timeout=5, description="its end")
        assert code == 5
        assert leash.agent_pid
    leash.close()


def fed(
    leash: Leash, process: "subprocess.Popen[bytes]", until: float | None = None
) -> int | None:
    leash.feed(until or identity.now() + 0.4)
    return process.poll()


def test_a_keeper_whose_worker_lets_go_kills(tmp_path: Path):
    leash = Leash("test", identity.now() + 60)
    env = leash.environ
    env.pop("BATON_CLI")
    with kept(f"echo $$ > {tmp_path}/pid; exec sleep 300", tmp_path, **env) as process:
        wait_until((tmp_path / "pid").exists, description="the agent")
        leash.close()
        assert process.wait(1) == 137  # close() waits for it


def test_an_agent_that_is_asked_to_end_may_write_down_where_it_was(tmp_path: Path):
    leash = Leash("test", identity.now() + 60)
    env = leash.environ
    env.pop("BATON_CLI")
    script = f"trap 'echo bye > {tmp_path}/said; exit 143' TERM; touch {tmp_path}/up; sleep 300 & wait"
    with kept(script, tmp_path, **env) as process:
        wait_until((tmp_path / "up").exists, description="the agent")
        leash.end()
        assert process.wait(5) == 143
    assert (tmp_path / "said").read_text() == "bye\n"
    leash.close()


def test_an_agent_that_will_not_end_is_killed_with_the_lease(tmp_path: Path):
    leash = Leash("test", identity.now() + 1.0)
    env = leash.environ
    env.pop("BATON_CLI")
    with kept(
        f"trap '' TERM; touch {tmp_path}/up; sleep 300; sleep 300", tmp_path, **env
    ) as process:
        wait_until((tmp_path / "up").exists, description="the agent")
        process.send_signal(signal.SIGTERM)
        assert process.wait(2.5) == 137  # not the whole grace of 3 s
    leash.close()


def test_only_a_child_of_the_worker_is_taken_for_its_keeper(tmp_path: Path):
    leash = Leash("test", identity.now() + 60)
    name = leash.environ["BATON_KEEPER"]
    with socket.socket(socket.AF_UNIX) as stranger:  # this process is no child of itself
        stranger.connect(f"\0{name}")
        stranger.send(b"not a number")
        leash.feed(identity.now() + 1)
        assert leash.agent_pid is None
        leash.end()  # and this process lives on
    leash.close()


def test_the_environment_is_passed_on_by_list():
    given = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "ANTHROPIC_API_KEY": "k",
        "BATON_ATTEMPT": "a",
        "BATON_DATABASE": "x",
        "DATABASE_URL": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "LD_PRELOAD": "x",
        "PYTHONPATH": "x",
        # They may hold a password, and an agent's own way out is set by its bridge.
        **{f"{kind}_proxy": "http://u:pw@host" for kind in ("http", "https", "no")},
        **{f"{kind}_PROXY": "http://u:pw@host" for kind in ("HTTP", "HTTPS", "NO")},
    }
    passed = environment.allowed(given)
    assert set(passed) == {"PATH", "LC_ALL", "ANTHROPIC_API_KEY", "BATON_ATTEMPT"}


def test_of_what_it_is_fed_the_last_whole_number_counts():
    assert keeper.fed_until(b"1.0\n5.0\n", 0) == 5.0
    assert keeper.fed_until(b"7.0\n9", 0) == 7.0
    assert keeper.fed_until(b"garbage\n", 42.0) == 42.0


def test_a_fork_finds_the_sub_agents_of_its_parent_under_its_own_id(tmp_path: Path):
    for session in ("parent", "other"):
        (tmp_path / "projects" / "-srv-shop" / session / "subagents").mkdir(parents=True)
    with kept(
        "exit 0", tmp_path, BATON_FORK="parent:child", CLAUDE_CONFIG_DIR=str(tmp_path)
    ) as process:
        assert process.wait(5) == 0
    there = sorted(path.name for path in (tmp_path / "projects" / "-srv-shop").iterdir())
    assert there == ["child", "other"]
    assert (tmp_path / "projects" / "-srv-shop" / "child" / "subagents").is_dir()
