"""People at a page through a storm: 200 messages from two tabs and a phone, a fault every few.

The browser is Chromium in a network namespace of its own: loss and a black hole are iptables there.
Postgres and Redis are this test's own, and really restarted and killed. Each message is a job that
this process does. At the end what the pages show and keep is compared with the log, row by row.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis

from db.core.migrate import migrate
from db.jobs import jobs, outbox
from db.live import keys
from dev.stack.embedded import open_postgres, open_redis
from dev.stack.processes import free_port
from dev.stack.server import Server
from tests.faults import network
from tests.faults.conftest import Tally
from tests.faults.driving import give_up, try_to_run
from tests.live.node import (
    CHECKOUT,
    CHROMIUM,
    MODULES,
    needs_chromium,
    needs_node,
    needs_packages,
)
from tests.live.test_gateway import NEXT, SAID_TWICE
from tests.running import AtWork
from tests.waiting import wait_until

MESSAGES, EVERY, FAULTS = 200, 12, 16  # each fault once
LONGEST = 7200  # seconds; a quiet machine takes 400
OPEN = "select from jobs where finished_at is null or untold"
HEAD = "select max(seq) from events"
RUNNING = "select id from jobs where state = 'running'"
SAID = "select seq, body ->> 'text' from events where type = 'chat.said' and body ->> 'role' = 'user' order by seq"
pytestmark = [
    needs_node,
    needs_packages,
    needs_chromium,
    network.needs_network,
    pytest.mark.agent("direct"),
    pytest.mark.long,
    pytest.mark.timeout(LONGEST + 300),
]


@pytest.fixture(scope="module")
def operator() -> Iterator[ThreadPoolExecutor]:
    """A thread that outlives every fault: a server ends with the thread that started it."""
    with ThreadPoolExecutor(1) as thread:
        yield thread


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with open_postgres(tmp_path_factory.mktemp("ledger"), durable=True) as server:
        yield server


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with open_redis(tmp_path_factory.mktemp("cache")) as server:
        yield server


@pytest.fixture
def dsn(ledger: Server) -> str:
    name = f"test_{uuid4().hex}"
    with psycopg.connect(ledger.url, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())
    url = f"{ledger.url.rpartition('/')[0]}/{name}"
    migrate(url)
    return url


@pytest.fixture
def redis_url(cache: Server) -> str:
    return cache.url


@pytest.fixture(autouse=True)
def _hung_up(at_work: AtWork) -> Iterator[None]:
    """The connection that was made anew is closed at the end."""
    yield
    at_work.conn.close()


def wiped(server: Server) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


def restarted(end: Callable[[], object], server: Server) -> None:
    """It ends so, is away for a while, and comes back."""
    end()
    threading.Event().wait(2)
    server.start()


def worked(dsn: str) -> int:
    """The number of the last event, once there is nothing more to do."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        wait_until(
            lambda: not conn.execute(OPEN).rowcount,
            timeout=LONGEST / 4,
            description="the jobs to end",
        )
        row = conn.execute(HEAD).fetchone()
    assert row
    return int(row[0])


def test_people_at_a_page_lose_nothing_and_see_nothing_twice_in_a_storm(
    at_work: AtWork,
    dsn: str,
    ledger: Server,
    cache: Server,
    operator: ThreadPoolExecutor,
    tmp_path: Path,
    tally: Tally,
    seed: int,
):
    tally.fault = "A page, two tabs and a phone: whatever a network and servers do"
    web = free_port()
    with network.network():
        out = network.Line(f"127.0.0.1:{web}", at=network.HOST)
        near = network.Line(f"{network.HOST}:{out.port}", inside=network.INSIDE)

        def cut() -> None:
            out.off()
            out.on()

        deeds: dict[str, Callable[[], object]] = {
            "cut": cut,
            "hole": network.lossy("1"),
            "loss": network.lossy("0.3"),
            "heal": network.inside("iptables", "-F", "INPUT"),
            "redis-wiped": lambda: wiped(cache),
            "redis-restarted": lambda: restarted(cache.stop, cache),
            "redis-killed": lambda: restarted(cache.kill, cache),
            "postgres-restarted": lambda: restarted(ledger.stop, ledger),
            "postgres-killed": lambda: restarted(ledger.kill, ledger),
        }
        held: dict[str, Callable[[], object]] = {
            name: lambda do=do: operator.submit(do).result() for name, do in deeds.items()
        }
        held["worked"] = lambda: worked(dsn)
        try:
            with network.answering(held) as faults:
                env = {
                    "BROWSER": str(network.placed(tmp_path / "browser", CHROMIUM)),
                    "KEY": keys.create(at_work.conn, "acme", "tests", ["jobs"])[0],
                    "BATON_WEB_PORT": str(web),
                    "DATABASE_URL": dsn,
                    "REDIS_URL": cache.url,
                    "WAY": f"http://127.0.0.1:{near.port}",
                    "FAULTS": faults,
                    "SEED": str(seed),
                }
                seen = _browse(at_work, dsn, tmp_path, env)
        finally:
            near.off()
            out.off()
    tally.ran(len(seen["faults"]))
    tally.note = f"{seen['connections']} connections, {seen['events']} events on the wire"
    tally.check(wrong(at_work, seen))


def wrong(at_work: AtWork, seen: dict[str, Any]) -> list[str]:
    """What the pages saw, show and keep that is not what the log says."""
    said = [[str(seq), text] for seq, text in at_work.rows(SAID)]
    texts = sorted(text for _, text in said)
    head = at_work.value(HEAD)
    found = [
        f"{count} {name}" for name in ("holes", "doubles", "snapshots") if (count := seen[name])
    ]
    if len(seen["faults"]) != FAULTS:
        found.append(f"only {len(seen['faults'])} faults")
    if texts != sorted(f"message {n}" for n in range(MESSAGES + 1)):
        found.append(f"stored are {len(texts)} messages, of which {len(set(texts))} differ")
    if head < 1000 or at_work.rows(SAID_TWICE):
        found.append(f"{head} events, or a message that is told twice")
    for name, page in seen["pages"].items():
        if sorted(page["shown"]) != sorted(said):
            found.append(f"{name} shows {len(page['shown'])} of {len(said)} messages")
        if page["kept"] != head:
            found.append(f"{name} keeps {page['kept']} of {head} events")
    return found


def _browse(at_work: AtWork, dsn: str, root: Path, more: dict[str, str]) -> dict[str, Any]:
    """Let the browser's side run, and do the jobs; what it says at its end."""
    ran: dict[str, Any] = {}
    env = {
        "BATON_NODE_MODULES": str(MODULES),
        "GATEWAY": json.dumps([sys.executable, "-m", "gateway"]),
        "BATON_SECRET": "s" * 32,
        "MESSAGES": str(MESSAGES),
        "EVERY": str(EVERY),
        **more,
    }

    def browse() -> None:
        ran["it"] = subprocess.run(
            ["node", CHECKOUT / "tests" / "live" / "storm.browser.mjs"],
            cwd=root,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )

    browsing = threading.Thread(target=browse)
    browsing.start()

    def at_its_end() -> bool:
        with suppress(psycopg.OperationalError):
            _work(at_work)
            return not browsing.is_alive()
        at_work.conn.close()
        with suppress(psycopg.OperationalError):
            at_work.conn = psycopg.connect(dsn, autocommit=True, connect_timeout=5)
        return False

    wait_until(at_its_end, timeout=LONGEST, description="the browser's side")
    browsing.join()
    it = ran["it"]
    assert it.returncode == 0, it.stdout + it.stderr
    return json.loads(it.stdout.splitlines()[-1])


def _work(at_work: AtWork) -> None:
    """Do what there is to do; what follows in a chain is cancelled. Raises when Postgres is away."""
    outbox.look(at_work.conn)
    for (job,) in at_work.rows(RUNNING):  # nobody runs it: Postgres went away under it
        give_up(at_work.conn, job)
    at_work.conn.execute(
        "update jobs set run_at = now() where state = 'queued' and run_at > now()"
    )
    for job, *_ in at_work.rows(NEXT):
        try_to_run(at_work, job)
        if at_work.job(job).ended:
            jobs.cancel(at_work.conn, job)
    outbox.look(at_work.conn)
