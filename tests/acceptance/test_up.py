"""`baton up` as an operator runs it: a process, its screen, its signals, and what it leaves.

The first part runs a small Celery application under the supervisor, the second the
Procfile itself.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
from celery import Celery

from dev.stack import processes
from dev.stack.processes import Process
from dev.stack.up import stack
from tests.machine import needs_setpriv
from tests.waiting import wait_until

READY = 60.0  # seconds
GONE = 20.0  # seconds, as promised

APP = """
import os, time
from celery import Celery
app = Celery("small", broker=os.environ["REDIS_URL"])
app.conf.update(worker_concurrency=1, broker_connection_retry_on_startup=True)
@app.task(name="wait")
def wait(seconds, file):
    time.sleep(seconds)
    open(file, "w").close()
"""
SMALL = (
    "worker: celery -A small worker --loglevel INFO\nother: sh -c 'echo hello; sleep 1000'\n"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text(APP)
    (tmp_path / "Procfile").write_text(SMALL)
    return tmp_path


@needs_setpriv
def test_a_killed_up_leaves_nothing(root: Path):
    with _up(root) as up:
        _ready(up)
        started = _everything(up)
        assert len(started) > 8, "services, stand-in, worker and its child, the other one"
        up.kill()
        assert processes.gone(started, within=GONE), "the kernel told them that it died"
    assert re.search(r"^other +\| hello$", _screen(root), re.MULTILINE)


@pytest.mark.long
def test_a_running_task_may_end_within_the_grace(root: Path):
    with _up(root) as up:
        _ready(up)
        done = root / "done"
        _send(root, "wait", 2, str(done))
        wait_until(lambda: "Task wait" in _screen(root), description="the task to be received")
        up.send_signal(signal.SIGINT)
        assert up.wait(GONE) == 0
    assert done.exists()


@pytest.mark.long
def test_a_second_ctrl_c_is_obeyed_at_once(root: Path):
    with _up(root, BATON_DRAIN_GRACE="600") as up:
        _ready(up)
        started = _everything(up)
        _send(root, "wait", 600, str(root / "done"))
        wait_until(lambda: "Task wait" in _screen(root), description="the task to be received")
        up.send_signal(signal.SIGTERM)
        wait_until(lambda: "once more stops at once" in _screen(root), description="the notice")
        begun = time.monotonic()
        up.send_signal(signal.SIGINT)
        assert up.wait(GONE) == 0
        assert time.monotonic() - begun < 5
    assert not any(processes.alive(process) for process in started)


@pytest.mark.long
def test_a_signal_before_it_is_ready_is_a_clean_end_too(root: Path):
    (root / "Procfile").write_text("worker: sleep 1000\n")  # it never answers
    with _up(root) as up:
        wait_until(lambda: (root / ".baton" / "services.json").exists(), description="services")
        wait_until(lambda: (root / ".baton/log/model.log").exists(), description="the stand-in")
        started = _everything(up)
        up.send_signal(signal.SIGINT)
        assert up.wait(GONE) == 0
    assert not any(processes.alive(process) for process in started)


def test_what_cannot_start_is_told_in_one_sentence(root: Path, empty_dsn: str, redis_url: str):
    (root / "Procfile").write_text("worker: python -S -m not_there\n")
    with _up(root, DATABASE_URL=empty_dsn, REDIS_URL=redis_url) as up:
        assert up.wait(READY) == 1
    (told,) = _errors(root)
    assert told.startswith("worker ended 3 times at its start: ")
    assert "not_there" in told
    assert "log/worker.log" in told


def test_a_bad_setting_is_told_in_one_sentence(root: Path):
    with _up(root, BATON_LEASE="soon") as up:
        assert up.wait(READY) == 1
    (told,) = _errors(root)
    assert told.startswith("BATON_LEASE is not usable")


@pytest.mark.long
def test_with_a_key_there_is_no_stand_in_and_workers_get_the_key(
    root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k-1")
    with stack(
        root, commands={"tell": "sh -c 'echo key $ANTHROPIC_API_KEY; sleep 1000'"}
    ) as running:
        assert "model" not in running.supervisor.children
        assert running.model.told == "https://api.anthropic.com"
        wait_until(lambda: "key k-1" in running.log("tell"), description="the key to be told")


def test_given_servers_are_used_and_left_alone_and_without_a_key_there_is_the_stand_in(
    root: Path, empty_dsn: str, redis_url: str
):
    names = ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "BATON_DRAIN_GRACE", "DATABASE_URL")
    command = f"sh -c 'echo {' '.join(f'${name}' for name in names)}; sleep 1000'"
    env = {"DATABASE_URL": empty_dsn, "REDIS_URL": redis_url}
    with stack(root, env, commands={"tell": command}) as running:
        assert running.services.embedded == ()
        assert "builds the same trail guide" in running.model.told
        told = f"{running.model.url} stand-in 5 {empty_dsn}\n"
        wait_until(lambda: running.log("tell") == told, description=f"{told!r} to be told")
    psycopg.connect(empty_dsn).close()


def test_the_procfile_comes_up_refuses_a_second_and_goes_without_a_trace(tmp_path: Path):
    with _up(tmp_path) as up:
        ready = _ready(up)
        found = re.search(
            r"^ready  database \S+  redis (\S+) .*  model (\S+) \(a stand-in", ready
        )
        assert found, ready
        with psycopg.connect(_noted(tmp_path)["database_url"]) as conn:
            assert conn.execute("select count(*) from jobs").fetchone() == (0,)
        with redis.Redis.from_url(found[1]) as client:
            assert client.ping()
        assert httpx.get(found[2], trust_env=False).status_code < 500
        second = subprocess.run(
            _command(), cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert second.returncode == 1
        assert second.stderr.startswith("Baton is up in this checkout already")
        assert up.poll() is None
        flower = re.search(r" flower (http://baton:(\w{32})@\S+)", ready)
        assert flower, ready
        kept = tmp_path / ".baton" / "flower" / "password"
        assert (kept.read_text(), kept.stat().st_mode & 0o777) == (flower[2], 0o600)
        assert _noted(tmp_path)["flower_url"] == flower[1]
        others = [one for one in _everything(up) if b"flower" not in _of(one, "cmdline")]
        assert len(others) > 8
        assert not [one for one in others if flower[2].encode() in _of(one, "environ")]
        started = _everything(up)
        wait_until(
            lambda: httpx.get(f"{flower[1]}/api/workers?refresh=true", trust_env=False).json(),
            timeout=20,
            description="Flower to see a worker",
        )
        up.send_signal(signal.SIGTERM)
        assert up.wait(GONE) == 0
    assert not any(processes.alive(process) for process in started)
    assert not (tmp_path / ".baton" / "services.json").exists()


def _command() -> list[str]:
    return [sys.executable, "-m", "dev.stack.up"]


@contextmanager
def _up(root: Path, **env: str) -> Generator[subprocess.Popen[bytes]]:
    """`baton up` with its screen in files; at the end it is gone, whatever happened."""
    with (root / "out").open("wb") as out, (root / "err").open("wb") as err:
        up = subprocess.Popen(
            _command(), cwd=root, stdout=out, stderr=err, env={**os.environ, **env}
        )
        try:
            yield up
        finally:
            up.kill()
            up.wait()


def _screen(root: Path) -> str:
    return (root / "out").read_text()


def _errors(root: Path) -> list[str]:
    return (root / "err").read_text().splitlines()


def _ready(up: subprocess.Popen[bytes]) -> str:
    root = Path(f"/proc/{up.pid}/cwd").readlink()

    def line() -> str | None:
        assert up.poll() is None, _errors(root)
        return next(
            (one for one in _screen(root).splitlines() if one.startswith("ready ")), None
        )

    return wait_until(line, timeout=READY, description="the line `ready`") or ""


def _everything(up: subprocess.Popen[bytes]) -> list[Process]:
    return [process for process in processes.descendants(up.pid) if processes.alive(process)]


def _of(process: Process, what: str) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/{what}").read_bytes()
    except OSError:
        return b""  # it has just ended


def _noted(root: Path) -> dict[str, str]:
    return json.loads((root / ".baton" / "services.json").read_text())


def _send(root: Path, task: str, *args: object) -> None:
    with Celery(broker=_noted(root)["redis_url"], set_as_current=False) as app:
        app.send_task(task, args=args)
