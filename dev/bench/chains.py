"""`make bench`: what Baton itself costs, beside a plain durable Celery chain in the same run.

The agent does nothing here (scripted), so what is left is the ledger, the transcript
store, the workspace's repository, Celery and Redis. Ratios within a run hold from machine
to machine; absolute figures do not.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import psycopg
import redis
from celery import Celery
from rich.console import Console
from rich.table import Table

from config.settings import settings
from dev.stack.up import EXPECTED, stack
from worker.client import Build, ChatPlan, enqueue

CHAINS = 20  # in one drain
ASKED = 20  # one after the other, for the latency
REPETITIONS = 3
COMMANDS = {
    "worker": "celery -A dev.bench.worker worker --loglevel INFO --without-mingle",
    "relay": "python -m worker.relay",
}


def main(root: Path) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as place:
            overrides = {
                "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",  # nobody asks it
                "BATON_COMPACT": "never",
                "BATON_LOG_LEVEL": "warning",
                "BATON_WORKSPACES": f"{place}/workspaces",
                "BATON_AGENT_HOME": f"{place}/agent",
            }
            with stack(Path(place), overrides, commands=COMMANDS) as running:
                os.environ |= {
                    "DATABASE_URL": running.database_url,
                    "REDIS_URL": running.redis_url,
                    "BATON_WORKSPACES": f"{place}/workspaces",
                }
                settings.cache_clear()
                console.print(_table(running.database_url, running.redis_url))
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    return 0


def _table(database_url: str, redis_url: str) -> Table:
    with psycopg.connect(database_url, autocommit=True) as conn:
        plain = Celery(broker=redis_url)
        broker = redis.Redis.from_url(redis_url, decode_responses=True)
        pairs = [(_drain_plain(plain, broker), _drain(conn)) for _ in range(REPETITIONS)]
        latencies = sorted(_latency(conn) for _ in range(ASKED))
    table = Table(title=f"{CHAINS} chains, median (min to max) of {REPETITIONS}")
    for column in ("", "chains/s", "ratio to plain Celery"):
        table.add_column(column)
    ours, theirs = [b for _, b in pairs], [a for a, _ in pairs]
    table.add_row("Celery, three empty steps, durable, no ledger", _spread(theirs), "1")
    ratios = [b / a for a, b in pairs]
    table.add_row(
        "Baton, build → metadata (2 turns) → compaction, no agent",
        _spread(ours),
        _spread(ratios),
    )
    table.caption = (
        f"asked to done, one turn, nothing else running: p50 {latencies[len(latencies) // 2]:.1f} ms,"
        f" p95 {latencies[int(len(latencies) * 0.95)]:.1f} ms (n = {ASKED})"
    )
    return table


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def _drain_plain(app: Celery, broker: "redis.Redis") -> float:
    broker.delete("bench:done")
    began = time.perf_counter()
    for chain in range(CHAINS):
        app.send_task("bench.step", (chain, 1), queue="celery", ignore_result=True)
    while int(str(broker.get("bench:done") or 0)) < CHAINS:
        time.sleep(0.005)
    broker.delete("bench:done")
    return CHAINS / (time.perf_counter() - began)


def _drain(conn: psycopg.Connection) -> float:
    """Chains of projects of their own; the first turn's empty workspace included."""
    run = uuid4().hex[:8]
    began = time.perf_counter()
    with conn.transaction():
        for chain in range(CHAINS):
            enqueue(conn, Build(project=f"bench-{run}-{chain}", user="bench", prompt="go"))
    while conn.execute("select 1 from jobs where finished_at is null limit 1").fetchone():
        time.sleep(0.02)
    return CHAINS / (time.perf_counter() - began)


def _latency(conn: psycopg.Connection) -> float:
    """Milliseconds from asking to the commit of a chat's turn, nothing else running."""
    began = time.perf_counter()
    job = enqueue(conn, ChatPlan(project="bench-latency", user="bench", prompt="go"))
    while not conn.execute(
        "select 1 from jobs where id = %s and finished_at is not null", (job.id,)
    ).fetchone():
        time.sleep(0.001)
    return (time.perf_counter() - began) * 1000
