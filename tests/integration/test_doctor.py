"""What doctor finds, and what it says of it: each check in a world where it must speak up."""

import signal
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from claude_agent_sdk._cli_version import __cli_version__
from psycopg import Connection
from structlog.testing import capture_logs

from db.jobs import beats, limits, messages, relays, workers
from db.jobs.jobs import NEVER
from db.jobs.workers import Worker
from db.operations import upkeep
from dev.stack.embedded import open_redis
from dev.standin.server import standin
from tests import ledger
from tests.conftest import Configure
from tests.waiting import wait_until
from worker.agent import version
from worker.broker import periodic
from worker.broker.connection import fitness
from worker.cli import doctor
from worker.cli.doctor.ledger import START_RELAY
from worker.live import checkpoints
from worker.process import identity

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
Checks = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def checks(configure: Configure, dsn: str, redis_url: str) -> Checks:
    """`checks()`: state and text by the check's name."""

    def examine(**env: str) -> dict[str, tuple[str, str]]:
        configure(**{"DATABASE_URL": dsn, "REDIS_URL": redis_url} | env)
        checkpoints.client.cache_clear()
        return {one.name: (one.state, one.text) for one in doctor.examine()}

    return examine


def _worker(credential: str = "abc") -> Worker:
    return Worker("w1", "here", 1, 2, "bubblewrap", version.TESTED, credential)


def test_all_is_well_but_for_warnings(checks: Checks, conn: Connection):
    workers.report(conn, _worker())
    relays.report(conn, relay_id="r", host="h", boot="b", pid=1)
    found = checks(BATON_SANDBOX="off")
    assert {state for state, _ in found.values()} == {"ok", "warn"}, found
    assert found["bubblewrap"][0] == "warn"
    assert found["workers"] == ("ok", f"w1: 2 slots, CLI {version.TESTED}, bubblewrap")
    assert found["queues"] == ("ok", "baton: 0 messages, celery (plain): 0, upkeep: 0")


def test_what_cannot_work_fails_check_by_check(checks: Checks):
    found = checks(
        DATABASE_URL=NOWHERE,
        REDIS_URL="redis://127.0.0.1:1/0",
        BATON_WORKSPACES="/proc/nowhere",
    )
    failed = [name for name, (state, _) in found.items() if state == "fail"]
    assert failed == ["postgres", "redis", "workspaces", "disk"], "/proc has no room either"


def test_a_database_without_our_tables_fails(checks: Checks, empty_dsn: str):
    state, text = checks(DATABASE_URL=empty_dsn)["migrations"]
    assert (state, "run `baton migrate`" in text) == ("fail", True)


def test_a_worker_with_another_cli_is_pointed_out(checks: Checks, conn: Connection):
    assert checks()["workers"][0] == "fail"
    workers.report(conn, Worker("w2", "here", 1, 2, None, "3.0.1", "abc"))
    assert checks()["workers"] == ("warn", "w2: 2 slots, CLI 3.0.1, no box")


@pytest.mark.parametrize(
    ("says", "state", "sentence"),
    [
        (
            f"{version.TESTED} (Claude Code)",
            "ok",
            f"{version.TESTED}, with which Baton is tested",
        ),
        ("2.0.14 (Claude Code)", "warn", f"2.0.14 is older than {version.TESTED}"),
        ("99.1.0 (Claude Code)", "warn", f"99.1.0 is newer than {version.TESTED}"),
        ("hello", "warn", "hello is no version of it"),
        ("", "fail", "It cannot be run, or does not tell its version"),
    ],
)
def test_a_cli_of_another_version_is_named(
    checks: Checks, tmp_path: Path, says: str, state: str, sentence: str
):
    program = tmp_path / "claude"
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    found = checks(BATON_CLI_PATH=str(program))["agent CLI"]
    with capture_logs() as logged:
        version.warn_of_another()  # as a worker starts
    assert (found[0], sentence in found[1]) == (state, True), found
    assert [sentence in line["why"] for line in logged] == ([] if state == "ok" else [True])


def test_a_cli_that_could_not_tell_once_is_asked_again_after_a_while(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "claude"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    configure(BATON_CLI_PATH=str(program))
    assert version.cli_version() is None
    program.write_text("#!/bin/sh\necho 2.1.7\n")
    assert version.cli_version() is None, "not by each who wants to know"
    monkeypatch.setattr(version, "AGAIN", version.AGAIN / 1000)
    assert version.cli_version() == "2.1.7"
    program.unlink()
    assert version.cli_version() == "2.1.7"


def test_the_cli_that_the_sdk_brings_along_is_the_one_that_is_tested():
    assert __cli_version__ == version.TESTED


def test_a_relay_that_is_busy_is_told_from_one_that_is_dead_stopped_or_stuck(
    checks: Checks, conn: Connection
):
    def relay(
        *, boot: str = "another", pid: int = 4711, silent: str = "0 s"
    ) -> tuple[str, str]:
        conn.execute("delete from relays")
        relays.report(conn, relay_id="r", host="h", boot=boot, pid=pid)
        conn.execute(f"update relays set seen_at = now() - interval '{silent}'".encode())
        return checks()["relay"]

    assert checks()["relay"] == ("fail", f"none was heard of: {START_RELAY}")
    assert relay() == ("ok", "1 live, no job is overdue")
    ledger.ask(conn)
    ledger.published(conn, 0)
    assert relay() == ("ok", "1 live, no job is overdue; jobs are ready and wait for a slot")
    ledger.ask(conn, project="q")
    conn.execute("update jobs set publish_after = now() - interval '1 min'")
    assert "lives, and yet a job has been due for 1 m 0 s" in relay()[1]
    assert "pid 4711 on h has said nothing for 1 m 0 s" in relay(silent="1 min")[1]
    with subprocess.Popen(["sleep", "60"]) as process:
        mine = identity.boot()
        assert "has hung" in relay(boot=mine, pid=process.pid, silent="1 min")[1]
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: identity.stopped(process.pid), description="it is stopped")
        assert "is stopped (SIGSTOP)" in relay(boot=mine, pid=process.pid, silent="1 min")[1]
        process.kill()
    assert "is gone" in relay(boot=mine, pid=process.pid, silent="1 min")[1]


def test_beat_is_known_by_its_own_pulse_within_half_a_minute(checks: Checks, conn: Connection):
    assert "none was heard of" in checks()["beat"][1]
    upkeep.claim_tick(conn, "sweep", timedelta(minutes=5))
    assert checks()["beat"][0] == "warn", "what was asked for before does not speak for it"
    beats.report(conn, uuid4(), "here", 4711)
    assert checks()["beat"][0] == "ok"
    conn.execute("update beats set seen_at = now() - interval '31 s'")
    state, text = checks()["beat"]
    assert (state, "process 4711 on here, has been silent for 31" in text) == ("warn", True)
    for _ in range(2):
        beats.report(conn, uuid4(), "here", 1)
    assert checks()["beat"][1].endswith("; there are 2, which is harmless")


def test_a_beat_that_is_started_again_and_again_is_told(checks: Checks, conn: Connection):
    for _ in range(6):
        beats.report(conn, uuid4(), "here", 1)
    state, text = checks()["beat"]
    assert (state, "started 6 times" in text) == ("warn", True)


def test_clean_up_that_nobody_does_is_told_apart_from_a_dead_beat(
    checks: Checks, conn: Connection
):
    beats.report(conn, uuid4(), "here", 1)
    assert checks()["clean-up"][0] == "ok", "it has just begun"
    conn.execute("update beats set started_at = now() - interval '1 day'")
    found = checks()
    assert (found["beat"][0], found["clean-up"][0]) == ("ok", "warn")
    for name in periodic.NAMES:
        upkeep.claim_tick(conn, name, timedelta(minutes=5))
    assert checks()["clean-up"][0] == "ok"
    conn.execute("update ticks set at = now() - interval '12 min' where name = 'sweep'")
    state, text = checks()["clean-up"]
    assert (state, text.startswith("sweep had its turn more than 10 m")) == ("warn", True), text


def test_messages_that_were_refused_are_told(checks: Checks, conn: Connection):
    assert checks()["messages"][0] == "ok"
    messages.refuse(conn, "order 7", "tasks.biuld", "unknown_task", "There is no such task.")
    state, text = checks()["messages"]
    assert (state, "order 7: There is no such task." in text) == ("warn", True)


def test_a_probe_that_succeeds_clears_the_parked_credential(
    checks: Checks, conn: Connection, configure: Configure
):
    with standin(scenario="plain") as model:
        env = {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": "sk-test"}
        configure(**env)
        credential = identity.credential()
        workers.report(conn, _worker(credential))
        job = ledger.ask(conn)
        limits.impose(conn, credential, wait=None, reason="authentication_failed")
        (limit,) = limits.in_force(conn)
        limits.park_waiting(conn, job, limit.credential, silent_after=timedelta(0))
        for kind, expected in (
            ("401", "fail"),
            ("credit", "fail"),
            ("429", "warn"),
            ("529", "warn"),
        ):
            model.fault(kind)
            assert checks(**env)["model"][0] == expected, kind
            assert ledger.job_row(conn, job, "run_at") == NEVER
        state, text = checks(**env)["model"]
        assert (state, "1 jobs go on" in text) == ("ok", True)
        assert ledger.job_row(conn, job) == "queued"
        assert not any("sk-test" in text for _, text in checks(**env).values())


def test_an_endpoint_that_is_no_model_is_not_taken_for_one(checks: Checks):
    with standin(scenario="plain") as model:
        model.fault("garbage")
        assert checks(ANTHROPIC_BASE_URL=model.url)["model"][0] == "fail"
        gone = model.url
    assert checks(ANTHROPIC_BASE_URL=gone)["model"][0] == "fail"


def test_a_redis_that_evicts_is_a_failure(checks: Checks, tmp_path: Path):
    with open_redis(tmp_path / "evicts") as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        state, text = checks(REDIS_URL=server.url)["redis"]
    assert (state, "noeviction" in text) == ("fail", True)


def test_a_redis_that_is_full_is_a_failure(checks: Checks, tmp_path: Path):
    with open_redis(tmp_path / "full") as server:
        with redis.Redis.from_url(server.url) as client:
            client.config_set("maxmemory", 100_000)  # less than an empty one uses
        state, text = checks(REDIS_URL=server.url)["redis"]
    assert (state, "it is full" in text) == ("fail", True)


def test_a_redis_that_lets_anybody_in_is_a_warning(checks: Checks, tmp_path: Path):
    with open_redis(tmp_path / "open") as server:
        assert checks(REDIS_URL=server.url)["redis"][0] == "ok"
        with redis.Redis.from_url(server.url) as client:
            client.execute_command(
                "ACL", "SETUSER", "ours", "on", ">known", "~*", "&*", "+@all"
            )
            client.execute_command("ACL", "SETUSER", "default", "nopass")
        for who in ("", "ours:known@"):
            url = f"redis://{who}{server.url.rpartition('@')[2]}"
            state, text = checks(REDIS_URL=url)["redis"]
            assert (state, "but to anybody" in text) == ("warn", True)


def test_a_redis_that_is_nearly_full_is_a_warning():
    memory = {"maxmemory_policy": "noeviction", "maxmemory": 1000, "used_memory": 950}
    assert fitness(memory) == ("warn", "95% of its maxmemory is in use: raise it.")
    assert fitness(memory | {"maxmemory": 0})[0] == "ok"


def test_webhooks_that_fail_are_given_up_or_not_sent_at_all(checks: Checks, conn: Connection):
    assert checks()["webhooks"] == ("ok", "none fails")
    given_up, failing, unsent, old = (ledger.ask(conn, project=name) for name in "abcd")
    ledger.webhook(
        conn, given_up, state="given_up", error="answered 500", ago=timedelta(hours=3)
    )
    ledger.webhook(conn, failing, error="answered\n502", ago=timedelta(minutes=1))
    assert checks()["webhooks"] == (
        "warn", "1 failed and will be tried again; 1 were given up in the last day; the newest to"
        " hooks.example (answered 502). `baton webhooks` lists them."
    )  # fmt: skip
    conn.execute("delete from webhooks")
    ledger.webhook(conn, old, state="given_up", error="answered 500", ago=timedelta(days=2))
    assert checks()["webhooks"] == ("ok", "none fails")
    ledger.webhook(conn, unsent, ago=timedelta(minutes=6))
    state, text = checks()["webhooks"]
    assert state == "warn"
    assert text.startswith(
        "one has been due for 6 m 0 s: relays send them, and need BATON_CALL"
    )
