"""The embedded services: they come up, are found, stand alone, and leave nothing behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from dev.stack import processes, server
from dev.stack.noted import find
from dev.stack.processes import Process
from dev.stack.server import ServiceError
from dev.stack.services import Services, services
from tests.machine import needs_setpriv
from tests.waiting import wait_until

CHECKOUT = Path(__file__).parents[2]
HOLD = """
import signal, sys
from pathlib import Path
from dev.stack.services import services
with services(Path(sys.argv[1])):
    print("up", flush=True)
    signal.pause()
"""


@dataclass(frozen=True)
class Started:
    """Services for the tests that only look at them."""

    root: Path
    running: Services


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    root = tmp_path_factory.mktemp("services") / ("a folder" * 12)  # no path is too long
    with services(root) as running:
        yield Started(root, running)


def test_what_is_written_is_there_at_the_next_start(tmp_path: Path):
    assert find(tmp_path) is None
    with services(tmp_path) as first, redis.Redis.from_url(first.redis_url) as client:
        with psycopg.connect(first.database_url) as conn:
            conn.execute("create table kept (n int)")
        client.set("kept", "yes")
    assert find(tmp_path) is None, "stopped ones are not found"
    with services(tmp_path) as second, redis.Redis.from_url(second.redis_url) as client:
        assert second.database_url == first.database_url, "port and password are remembered"
        with psycopg.connect(second.database_url) as conn:
            assert conn.execute("select count(*) from kept").fetchone() == (0,)
        assert client.get("kept") == b"yes"


def test_the_servers_are_set_up_as_the_worker_needs_them(started: Started):
    with psycopg.connect(started.running.database_url, autocommit=True) as conn:
        assert _setting(conn, "fsync") == "on"
        assert _setting(conn, "idle_in_transaction_session_timeout") == "30s"
        assert _setting(conn, "unix_socket_directories") == ""
        assert _setting(conn, "server_encoding") == "UTF8"
        assert _setting(conn, "listen_addresses") == "127.0.0.1"
    with redis.Redis.from_url(started.running.redis_url) as client:
        config = client.config_get("maxmemory-policy", "appendfsync", "bind")
        assert config == {
            "maxmemory-policy": "noeviction", "appendfsync": "everysec", "bind": "127.0.0.1",
        }  # fmt: skip
        client.set("seen", "1")
        assert client.execute_command("DEBUG", "OBJECT", "seen"), "every command is allowed"


def test_only_their_owner_may_read_the_data_and_the_password(started: Started):
    home = started.root / ".baton"
    for folder in (home, home / "postgres", home / "redis", home / "redis" / "data"):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    for file in (home / "services.json", home / "postgres" / "password"):
        assert file.stat().st_mode & 0o777 == 0o600, file
    wrong = started.running.database_url.replace("baton:", "baton:not")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


@pytest.mark.long
def test_parents_of_the_checkout_keep_their_modes(tmp_path: Path):
    outer = tmp_path / "outer"
    outer.mkdir(mode=0o700)
    with services(outer / "checkout"):
        assert outer.stat().st_mode & 0o777 == 0o700


def test_running_services_are_found(started: Started):
    found = find(started.root)
    assert found
    assert found.database_url == started.running.database_url
    assert found.redis_url == started.running.redis_url


@pytest.mark.parametrize("noted", ["", "{", "[]", '{"database_url": "x"}', '"text"'])
def test_a_damaged_note_of_the_services_finds_nothing(tmp_path: Path, noted: str):
    (tmp_path / ".baton").mkdir()
    (tmp_path / ".baton" / "services.json").write_text(noted)
    assert find(tmp_path) is None


@pytest.mark.long
def test_a_second_start_in_the_same_checkout_says_so(tmp_path: Path):
    with services(tmp_path):
        with pytest.raises(ServiceError, match=f"up in this checkout already .*{os.getpid()}"):
            _enter(tmp_path)
        assert find(tmp_path), "the first one is untouched"


@pytest.mark.long
def test_two_checkouts_run_side_by_side(tmp_path: Path):
    with services(tmp_path / "one") as one, services(tmp_path / "two") as two:
        assert one.database_url != two.database_url
        assert one.redis_url != two.redis_url


def test_a_port_that_was_taken_meanwhile_is_replaced(tmp_path: Path):
    with services(tmp_path) as first:
        pass
    shutil.copytree(tmp_path / ".baton", tmp_path / "copy" / ".baton")  # with the same ports
    with services(tmp_path) as again, services(tmp_path / "copy") as copy:
        assert again.redis_url == first.redis_url
        assert copy.redis_url != first.redis_url
        assert copy.database_url != first.database_url
        psycopg.connect(copy.database_url).close()


def test_a_server_that_is_given_is_not_started(tmp_path: Path, postgres: str):
    with services(tmp_path, database_url=postgres) as running:
        assert running.database_url == postgres
        assert [one.name for one in running.embedded] == ["Redis"]
    assert not (tmp_path / ".baton" / "postgres").exists()


def test_a_given_server_that_does_not_answer_is_told_without_its_password(tmp_path: Path):
    port = processes.free_port()
    with pytest.raises(ServiceError, match="look at DATABASE_URL") as caught:
        _enter(tmp_path, database_url=f"postgresql://someone:hush@127.0.0.1:{port}/db")
    assert "hush" not in str(caught.value)
    with pytest.raises(ServiceError, match="look at REDIS_URL") as caught:
        _enter(tmp_path, redis_url=f"redis://:hush@127.0.0.1:{port}/0")
    assert "hush" not in str(caught.value)


def test_a_given_redis_that_takes_the_call_and_says_nothing_is_not_waited_for(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dev.stack.services.CONNECT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with pytest.raises(ServiceError, match="look at REDIS_URL"):
            _enter(tmp_path, database_url=postgres, redis_url=url)


def test_data_of_another_postgres_is_left_alone(tmp_path: Path):
    data = tmp_path / ".baton" / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServiceError, match=r"made by Postgres 9 .* move that folder away"):
        _enter(tmp_path)


@pytest.mark.long
def test_a_stopped_server_leaves_no_process(tmp_path: Path):
    with services(tmp_path):
        started = _noted(tmp_path)
        assert len(started) == 3, "the owner, Postgres, Redis"
        below = [*started[1:], *processes.descendants(started[1].pid)]
        assert len(below) > 4, "Postgres has processes of its own"
    assert not any(processes.alive(process) for process in below)


@pytest.mark.long
def test_a_server_can_be_killed_and_started_again(tmp_path: Path):
    with services(tmp_path) as running:
        for one in running.embedded:
            before = one.process
            one.kill()
            assert one.process is None
            one.start()
            assert one.process not in (None, before)
        psycopg.connect(running.database_url).close()


@needs_setpriv
def test_a_killed_parent_leaves_no_server_and_the_next_start_works(tmp_path: Path):
    with _holding(tmp_path) as parent:
        started = _noted(tmp_path)
        parent.kill()
        parent.wait()
        assert processes.gone(started, within=10), "the kernel told them that their parent died"
    assert (tmp_path / ".baton" / "services.json").exists(), "the note is stale"
    assert find(tmp_path) is None
    with services(tmp_path) as running:
        psycopg.connect(running.database_url).close()


@needs_setpriv
def test_a_start_right_after_a_kill_waits_for_what_is_left(tmp_path: Path):
    with _holding(tmp_path) as parent:
        parent.kill()
        parent.wait()
        with services(tmp_path) as running:
            psycopg.connect(running.database_url).close()


def test_servers_that_outlived_their_parent_are_ended_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server, "STOP", 0.5)
    with _holding(tmp_path) as parent:
        _, postgres, broker = started = _noted(tmp_path)
        processes.kill([postgres, broker], signal.SIGSTOP)  # they cannot hear that it dies
        parent.kill()
        parent.wait()
        with services(tmp_path) as running:
            assert not any(processes.alive(process) for process in started)
            psycopg.connect(running.database_url).close()


@pytest.mark.long
def test_a_pid_file_that_names_a_stranger_does_not_stop_the_start(tmp_path: Path):
    with services(tmp_path):
        pass
    stale = tmp_path / ".baton" / "postgres" / "data" / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"]) as stranger:  # the pid has been used again
        try:
            stale.write_text(f"{stranger.pid}\n{stale.parent}\n1\n1\n\n127.0.0.1\n1 1\n")
            with services(tmp_path) as running:
                psycopg.connect(running.database_url).close()
            assert stranger.poll() is None, "and it is left alone"
        finally:
            stranger.kill()


@pytest.mark.long
def test_a_set_up_that_was_cut_short_is_done_again(tmp_path: Path):
    half = tmp_path / ".baton" / "postgres" / "data.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with services(tmp_path) as running:
        psycopg.connect(running.database_url).close()


@pytest.mark.long
def test_redis_data_that_cannot_be_read_is_put_aside(tmp_path: Path):
    with services(tmp_path) as first, redis.Redis.from_url(first.redis_url) as client:
        client.set("a", "b")
    data = tmp_path / ".baton" / "redis" / "data"
    (base,) = data.glob("appendonlydir/*.base.rdb")
    base.write_bytes(b"REDIS9999" + base.read_bytes()[9:])
    with services(tmp_path) as second, redis.Redis.from_url(second.redis_url) as client:
        assert client.dbsize() == 0
    assert data.with_suffix(".unreadable").exists()


def test_a_pid_that_is_used_again_is_somebody_else():
    me = processes.look(os.getpid())
    assert me
    assert processes.alive(me)
    assert not processes.alive(Process(me.pid, me.started - 1))


def test_a_zombie_is_not_alive():
    child = subprocess.Popen(["true"])
    wait_until(
        lambda: processes.look(child.pid) is None, description="the child to be a zombie"
    )
    os.kill(child.pid, 0)  # it still answers, as it must for this test to mean anything
    child.wait()


def _enter(root: Path, **urls: str) -> None:
    with services(root, **urls):
        pass


def _noted(root: Path) -> list[Process]:
    noted = json.loads((root / ".baton" / "services.json").read_text())
    return [Process(**one) for one in noted["processes"]]


def _setting(conn: psycopg.Connection, name: str) -> str:
    row = conn.execute("select current_setting(%s)", (name,)).fetchone()
    assert row
    return row[0]


@contextmanager
def _holding(root: Path) -> Generator[subprocess.Popen[str]]:
    """Another process that holds the services of `root` open."""
    command = [sys.executable, "-c", HOLD, str(root)]
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()
