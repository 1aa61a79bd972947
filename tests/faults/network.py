"""A network of a browser's own, and what may happen to it: a namespace, iptables, socat.

with network():                                  # one way out of it
    line = Line("127.0.0.1:8320", at=HOST)       # from there to here
    lossy("0.3")()                               # until inside("iptables", "-F", "INPUT")()
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from dev.stack.processes import free_port
from tests.machine import LACKS

TOOLS = ("ip", "iptables", "socat", "ss")
NUMBER = (
    os.getpid() % 16_384
)  # of this run: others on the same machine have a network of their own
PLACE, OUTER, INNER = f"baton-storm-{NUMBER}", f"storm{NUMBER}o", f"storm{NUMBER}i"
HOST, GUEST = (
    f"10.{203 + NUMBER // 8192}.{NUMBER // 64 % 128}.{NUMBER % 64 * 4 + n}" for n in (1, 2)
)
INSIDE = ("ip", "netns", "exec", PLACE)
needs_network = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, TOOLS)),
    reason=f"{LACKS}root, iproute2, iptables and socat",
)


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
    for left in (("ip", "netns", "del", PLACE), ("ip", "link", "del", OUTER)):
        with suppress(subprocess.CalledProcessError):  # by a run that was killed
            do(*left)
    do("ip", "netns", "add", PLACE)
    try:
        ends = (OUTER, "type", "veth", "peer", "name", INNER)
        do("ip", "link", "add", *ends, "netns", PLACE)
        do("ip", "addr", "add", f"{HOST}/30", "dev", OUTER)
        do("ip", "link", "set", OUTER, "up")
        for words in (
            ("addr", "add", f"{GUEST}/30", "dev", INNER),
            ("link", "set", INNER, "up"),
            ("link", "set", "lo", "up"),
        ):
            do("ip", "-n", PLACE, *words)
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            do("ip", "link", "del", OUTER)
        do("ip", "netns", "del", PLACE)


def inside(*words: str) -> Callable[[], None]:
    return lambda: do(*INSIDE, *words)


def placed(script: Path, program: str) -> Path:
    """A program that runs that one in the network; it is written there."""
    script.write_text(f'#!/bin/sh\nexec {" ".join(INSIDE)} {program} "$@"\n')
    script.chmod(0o755)
    return script


def lossy(share: str) -> Callable[[], None]:
    """Drop this share of what comes in over the way out."""
    rule = ("-A", "INPUT", "-i", INNER, "-m", "statistic", "--mode", "random")
    return inside("iptables", *rule, "--probability", share, "-j", "DROP")


@contextmanager
def answering(deeds: dict[str, Callable[[], object]]) -> Generator[str]:
    """What the browser's side asks for by name: it is done, then its result is the answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = json.dumps(deeds[self.path.strip("/")]()).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
