"""How long it takes from asking for a chat to its commit, one after the other and nothing else running."""

import time
from pathlib import Path

import psycopg

from config.settings import settings
from dev.bench.candidates import candidates, running
from worker.client import ChatPlan, enqueue, ring

WARM = 20  # before any is counted


def latencies(place: Path, asked: int) -> list[float]:
    """Milliseconds, in order of length. The producer rings after its commit."""
    whole = candidates(place)[0][-1]
    url = settings().database_url.get_secret_value()
    with (
        running(whole.begin, whole.more, place / "log"),
        psycopg.connect(url, autocommit=True) as conn,
    ):
        return sorted([_one(conn, n // 100) for n in range(asked + WARM)][WARM:])


def _one(conn: psycopg.Connection, group: int) -> float:
    """A project has a hundred of them: a chat's transcript grows with each."""
    began = time.perf_counter()
    job = enqueue(conn, ChatPlan(project=f"bench-chat-{group}", user="bench", prompt="go"))
    ring()
    while not conn.execute(
        "select 1 from jobs where id = %s and finished_at is not null", (job.id,)
    ).fetchone():
        time.sleep(0.0005)
    return (time.perf_counter() - began) * 1000
