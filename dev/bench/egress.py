"""`baton bench egress`: what the egress proxy adds to a request of the agent's to its model.

    alone      client ──► stand-in
    proxied    client ──► bridge ──► Unix socket ──► proxy (token looked up) ──► stand-in

The same request of a size that the CLI's have, streamed, on connections that are kept. Two
figures: until the answer begins, and until it is over.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
from rich.table import Table

from config import egress
from config.settings import STANDIN_KEY, settings
from db.jobs import attempts
from db.sessions import tokens, turns
from dev.bench.place import Place, at_place
from dev.standin.server import standin
from worker.client import Build, enqueue
from worker.process import identity
from worker.sandbox import network

TIMES = 200
CHARACTERS = 100_000  # of the prompt
STARTS = 20.0  # seconds
AT = "print(__import__('os').environ['ANTHROPIC_BASE_URL'], flush=True); input()"

Took = tuple[float, float]  # milliseconds until the answer began, and until it was over


def main(root: Path) -> int:
    """Print the figures."""
    return at_place(root, _tell)


def _tell(place: Place) -> None:
    with standin(scenario="plain", speed=0) as model:
        place.enter(model.url)
        token = _token(place.database_url)
        with proxy(), _bridge(token) as url:
            # In turns, so that what else the machine does falls on both.
            pairs = [(_took(model.url, STANDIN_KEY), _took(url, token)) for _ in range(4)]
        place.console.print(_table(pairs))


@contextmanager
def proxy() -> Generator[None]:
    """A proxy with the settings of the environment, as the Procfile starts it."""
    with subprocess.Popen([sys.executable, "-m", "egress"]) as process:
        try:
            end = time.monotonic() + STARTS
            while not egress.listens() and time.monotonic() < end:
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


@contextmanager
def _bridge(token: str) -> Generator[str]:
    """The address of a bridge to it, as an agent has one."""
    with subprocess.Popen(
        [*network.bridge(boxed=False), sys.executable, "-c", AT],
        env={**os.environ, "ANTHROPIC_API_KEY": token},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _token(database_url: str) -> str:
    """The token of a turn that runs."""
    token, minted = tokens.fresh(), str(uuid4())
    with psycopg.connect(database_url, autocommit=True) as conn:
        asked = enqueue(conn, Build(project="bench", user="bench", prompt="go"))
        job = attempts.claim(
            conn,
            asked.id,
            attempt=uuid4(),
            runner=identity.runner("bench"),
            lease=settings().hard_limit,
            limit=settings().rescue_limit,
        )
        assert job
        turns.begin(conn, job, step="build", parent=None, minted=minted, tries=[], token=token)
    return token


def _took(url: str, key: str) -> list[Took]:
    asked = {
        "model": "claude-opus-5-5",
        "max_tokens": 1000,
        "stream": True,
        "messages": [{"role": "user", "content": f"say hello {'x' * CHARACTERS}"}],
    }
    took = list[Took]()
    with httpx.Client(trust_env=False, headers={"x-api-key": key}, timeout=30) as client:
        for _ in range(TIMES // 4):
            began = time.perf_counter()
            with client.stream("POST", f"{url}/v1/messages", json=asked) as answer:
                answer.raise_for_status()
                first = time.perf_counter()
                answer.read()
            took.append(((first - began) * 1000, (time.perf_counter() - began) * 1000))
    return took


def _table(pairs: list[tuple[list[Took], list[Took]]]) -> Table:
    table = Table(title=f"A request of {CHARACTERS // 1000} kB, ms, p50 (p95) of {TIMES}")
    for column in ("", "answer begins", "answer is over"):
        table.add_column(column)
    alone, proxied = ([one for pair in pairs for one in pair[which]] for which in (0, 1))
    for name, took in (("alone", alone), ("through the proxy", proxied)):
        table.add_row(name, *(_spread([one[which] for one in took]) for which in (0, 1)))
    more = [
        statistics.median(one[w] for one in proxied)
        - statistics.median(one[w] for one in alone)
        for w in (0, 1)
    ]
    table.add_row("more", *(f"{ms:.1f}" for ms in more))
    return table


def _spread(values: list[float]) -> str:
    ranked = sorted(values)
    return f"{statistics.median(ranked):.1f} ({ranked[int(len(ranked) * 0.95)]:.1f})"
