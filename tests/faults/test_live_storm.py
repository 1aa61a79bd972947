"""People at a page through a storm: 200 messages from two tabs and a phone, a fault every few.

The browser is Chromium, in a network namespace of its own where the machine allows it: loss and a
black hole are iptables there. Postgres and Redis are away for the gateway only, as both would be
while they restart; each message is a job that this process does.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis

from db.jobs import jobs
from db.live import keys
from dev.stack.processes import free_port
from tests.live.node import (
    CHECKOUT,
    CHROMIUM,
    MODULES,
    needs_chromium,
    needs_node,
    needs_packages,
)
from tests.live.test_gateway import NEXT, SAID_TWICE
from tests.machine import LACKS
from tests.running import AtWork
from tests.running import at_work as at_work
from tests.waiting import wait_until

MESSAGES, EVERY = 200, 14  # each fault once
TOOLS = ("ip", "iptables", "socat", "ss")
PLACE, HOST, GUEST = "baton-storm", "10.203.0.1", "10.203.0.2"
pytestmark = [
    needs_node,
    needs_packages,
    needs_chromium,
    pytest.mark.agent("direct"),
    pytest.mark.long,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, TOOLS)),
        reason=f"{LACKS}root, iproute2, iptables and socat",
    ),
]


def do(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


class Line:
    """A port that leads to another, until it is cut."""

    def __init__(self, to: str, *, at: str = "127.0.0.1", inside: tuple[str, ...] = ()) -> None:
        self.port, self._to, self._at, self._inside = free_port(), to, at, inside
        self._process: subprocess.Popen[bytes] | None = None
        self.on()

    def on(self) -> None:
        listen = f"TCP-LISTEN:{self.port},bind={self._at},fork,reuseaddr"
        self._process = subprocess.Popen(
            [*self._inside, "socat", listen, f"TCP:{self._to}"],
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )

    def off(self) -> None:
        """Nobody listens, and what was open is closed."""
        if self._process:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, 15)
            self._process.wait()


@contextmanager
def network() -> Generator[None]:
    """The browser's own, with one way out of it."""
    with suppress(subprocess.CalledProcessError):
        do("ip", "netns", "del", PLACE)
    do("ip", "netns", "add", PLACE)
    try:
        do(
            "ip",
            "link",
            "add",
            "storm0",
            "type",
            "veth",
            "peer",
            "name",
            "storm1",
            "netns",
            PLACE,
        )
        do("ip", "addr", "add", f"{HOST}/30", "dev", "storm0")
        do("ip", "link", "set", "storm0", "up")
        for words in (
            ("addr", "add", f"{GUEST}/30", "dev", "storm1"),
            ("link", "set", "storm1", "up"),
            ("link", "set", "lo", "up"),
        ):
            do("ip", "-n", PLACE, *words)
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            do("ip", "link", "del", "storm0")
        do("ip", "netns", "del", PLACE)


def inside(*words: str) -> Callable[[], None]:
    return lambda: do("ip", "netns", "exec", PLACE, *words)


def lossy(share: str) -> Callable[[], None]:
    """Drop this share of what comes in over the way out."""
    rule = ("-A", "INPUT", "-i", "storm1", "-m", "statistic", "--mode", "random")
    return inside("iptables", *rule, "--probability", share, "-j", "DROP")


@contextmanager
def answering(deeds: dict[str, Callable[[], object]]) -> Generator[str]:
    """What the browser's side asks for by name: it is done, then answered."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            deeds[self.path.strip("/")]()
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def by(url: str, line: Line) -> str:
    """The same server, by the line."""
    parts = urlsplit(url)
    who = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return urlunsplit(parts._replace(netloc=f"{who}127.0.0.1:{line.port}"))


def place_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"


def test_people_at_a_page_lose_nothing_and_see_nothing_twice_in_a_storm(
    at_work: AtWork, dsn: str, redis_url: str, tmp_path: Path
):
    key, _ = keys.create(at_work.conn, "acme", "tests", ["jobs"])
    web = free_port()
    postgres, cache = Line(place_of(dsn)), Line(place_of(redis_url))
    with network():
        out = Line(f"127.0.0.1:{web}", at=HOST)
        in_there = ("ip", "netns", "exec", PLACE)
        near = Line(f"{HOST}:{out.port}", inside=in_there)
        browser = tmp_path / "browser"
        browser.write_text(f'#!/bin/sh\nexec ip netns exec {PLACE} {CHROMIUM} "$@"\n')
        browser.chmod(0o755)

        def wipe() -> None:
            with redis.Redis.from_url(redis_url) as client:
                client.flushdb()

        def cut() -> None:
            out.off()
            out.on()

        deeds: dict[str, Callable[[], object]] = {
            "cut": cut,
            "hole": lossy("1"),
            "loss": lossy("0.3"),
            "heal": inside("iptables", "-F", "INPUT"),
            "redis-off": cache.off,
            "redis-on": cache.on,
            "redis-wipe": wipe,
            "postgres-off": postgres.off,
            "postgres-on": postgres.on,
        }
        try:
            with answering(deeds) as faults:
                env = {
                    "BATON_NODE_MODULES": str(MODULES),
                    "BROWSER": str(browser),
                    "KEY": key,
                    "GATEWAY": json.dumps([sys.executable, "-m", "gateway"]),
                    "BATON_WEB_PORT": str(web),
                    "BATON_SECRET": "s" * 32,
                    "DATABASE_URL": by(dsn, postgres),
                    "REDIS_URL": by(redis_url, cache),
                    "WAY": f"http://127.0.0.1:{near.port}",
                    "FAULTS": faults,
                    "MESSAGES": str(MESSAGES),
                    "EVERY": str(EVERY),
                }
                seen = _browse(at_work, tmp_path, env)
        finally:
            for line in (near, out, postgres, cache):
                line.off()
    events = at_work.value("select count(*) from events")
    print(json.dumps({**seen, "events_in_log": events}))  # noqa: T201 - the figures of the run
    assert (seen["holes"], seen["doubles"], seen["twice"]) == (0, 0, 0)
    assert len(seen["faults"]) == 14
    assert events >= 1000
    assert at_work.rows(SAID_TWICE) == []
    stored = at_work.value("select count(*) from jobs where args ->> 'prompt' like 'message %'")
    assert stored == MESSAGES + 1


def _browse(at_work: AtWork, root: Path, env: dict[str, str]) -> dict[str, Any]:
    """Let the browser's side run, and do the jobs; what it says at its end."""
    ran: dict[str, Any] = {}

    def browse() -> None:
        ran["it"] = subprocess.run(
            ["node", CHECKOUT / "tests" / "live" / "storm.browser.mjs"],
            cwd=root,
            env={**os.environ, **env},
            capture_output=True,
            text=True,
            timeout=2300,
            check=False,
        )

    browsing = threading.Thread(target=browse)
    browsing.start()

    def work() -> bool:
        for job, *_ in at_work.rows(NEXT):
            if at_work.run(job).state == "done":
                jobs.cancel(
                    at_work.conn, job
                )  # what follows in its chain is not looked at here
        return not browsing.is_alive()

    wait_until(work, timeout=2300, description="the browser's side")
    browsing.join()
    it = ran["it"]
    assert it.returncode == 0, it.stdout + it.stderr
    return json.loads(it.stdout.splitlines()[-1])
