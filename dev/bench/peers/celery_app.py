"""A durable Celery chain: late acknowledgement, given back when a worker is lost, one at a time.

With BENCH_DB each step also makes the four writes of a naive ledger, in one transaction of a pool.
"""

import os
from functools import cache
from typing import Any

import psycopg
from celery import Celery, chain
from psycopg_pool import ConnectionPool

from dev.bench.peers import marks

URL = os.environ["BENCH_REDIS"]
TABLES = """
    drop table if exists bench_projects, bench_versions, bench_moves, bench_metrics;
    create table bench_projects (id int primary key, session text, step int, updated_at timestamptz);
    create table bench_versions (project int primary key, status text, updated_at timestamptz);
    create table bench_moves (id bigserial primary key, project int, step int, old text, new text,
                              at timestamptz default now());
    create table bench_metrics (id bigserial primary key, project int, name text, value float8);
    create index on bench_moves (project);
    create index on bench_metrics (project);
    insert into bench_projects (id) select generate_series(0, 10000);
    insert into bench_versions (project) select generate_series(0, 10000)"""

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@cache
def _pool() -> ConnectionPool[psycopg.Connection]:
    return ConnectionPool(os.environ["BENCH_DB"], min_size=1, max_size=4, open=True)


def _write(project: int, step: int, old: str | None, new: str) -> None:
    with _pool().connection() as conn:
        conn.execute(
            "update bench_projects set session = %s, step = %s, updated_at = now() where id = %s",
            (new, step, project),
        )
        conn.execute(
            "update bench_versions set status = %s, updated_at = now() where project = %s",
            (f"s{step}", project),
        )
        conn.execute(
            "insert into bench_moves (project, step, old, new) values (%s, %s, %s, %s)",
            (project, step, old, new),
        )
        conn.execute(
            "insert into bench_metrics (project, name, value) values (%s, 'cost', 0)",
            (project,),
        )


def _step(given: dict[str, Any], number: int) -> dict[str, Any]:
    new = marks.step()
    if "BENCH_DB" in os.environ:
        _write(given["project"], number, given["session"], new)
    return {**given, "session": new}


@app.task(name="bench.build")
def build(given: dict[str, Any]) -> dict[str, Any]:
    """The first step."""
    return _step(given, 1)


@app.task(name="bench.metadata")
def metadata(given: dict[str, Any]) -> dict[str, Any]:
    """The second."""
    return _step(given, 2)


@app.task(name="bench.compaction")
def compaction(given: dict[str, Any]) -> dict[str, Any]:
    """The third."""
    return _step(given, 3)


def ask(chains: int) -> None:
    """Ask for so many chains."""
    if url := os.environ.get("BENCH_DB"):
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(TABLES)
    for project in range(chains):
        first = build.s({"project": project, "session": None})
        chain(first, metadata.s(), compaction.s()).apply_async()
