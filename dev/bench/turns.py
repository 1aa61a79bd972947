"""`baton bench turns`: four turns of the real CLI as jobs of Baton, and as a bare loop of the SDK.

    bare     build ─► read ─► write ─► question, each `query(resume=…, fork_session=True)`, one CLI each
    no box   build ─► recommendations ─► documentation ─► chat plan, `BATON_SANDBOX=off`
    box      the same in the box, as it is by default

The model is the stand-in in a process of its own, which takes no time (simulated); each side asks it
equally often. Processor time is of this process and of all that it began and waited for: the CLI,
its keeper, git. Of Postgres, Redis and the egress proxy, which live on, it is told apart. Of the
box nobody here is told: who ends it all at once waits for none of it.
"""

import asyncio
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast
from uuid import uuid4

import psycopg
from claude_agent_sdk import ClaudeAgentOptions, query
from redis import Redis
from rich.console import Console
from rich.table import Table

from config import logging as logs
from config.settings import STANDIN_KEY, settings
from db.core import pool
from db.core.migrate import migrate
from dev.bench.egress import proxy
from dev.bench.legs import Chain
from dev.bench.proc import used
from dev.bench.resume import model
from dev.stack.services import services
from dev.stack.up import EXPECTED
from worker.sandbox.leash import cli

TIMES = 3
UNKNOWN = ("processors",)  # of the box
FLUSHED = 2.0  # seconds
PROMPTS = (
    "say built",
    "read a.txt\nsay read",
    "write b.txt: b\nsay written",
    "what did we do?",
)
BUILD, ASK = "say built", "what did we do?"

Took = dict[str, float]  # seconds: by the clock, and of processors, by who used them


def main(root: Path) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as place,
            services(Path(place), database_url="", redis_url="") as running,
            model(Path(place)) as model_url,
            ExitStack() as later,
        ):
            migrate(running.database_url)
            os.environ |= {
                "DATABASE_URL": running.database_url,
                "REDIS_URL": running.redis_url,
                "ANTHROPIC_BASE_URL": model_url,
                "ANTHROPIC_API_KEY": STANDIN_KEY,
                "NO_PROXY": "127.0.0.1",
                "BATON_COMPACT": "never",
                "BATON_WORKSPACES": f"{place}/workspaces",
                "BATON_AGENT_HOME": f"{place}/agent",
                "BATON_EGRESS_HOME": f"{place}/egress",
                "BATON_LOG_LEVEL": "error",
            }
            settings.cache_clear()
            later.enter_context(proxy())
            logs.configure()
            with psycopg.connect(running.database_url, autocommit=True) as conn:
                _print(console, _measure(conn, Path(place)))
                _tell(console, conn, running.redis_url)
            pool.close()
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    return 0


def _measure(conn: psycopg.Connection, place: Path) -> dict[str, list[Took]]:
    """All ways by turns; the first time of each is not counted."""
    ways: dict[str, Callable[[], None]] = {
        "bare": lambda: _bare(place / f"bare-{uuid4()}"),
        "no box": lambda: _ours(conn, "off"),
        "box": lambda: _ours(conn, "auto"),
    }
    took: dict[str, list[Took]] = {way: [] for way in ways}
    for time_ in range(TIMES + 1):
        for way, run in ways.items():
            found = _took(run)
            if time_:
                took[way].append(found)
    return took


def _took(run: Callable[[], None]) -> Took:
    began, ours, others = time.perf_counter(), _own(), used()
    run()
    clock, after = time.perf_counter() - began, used()
    each = {who: after[who] - others.get(who, 0.0) for who in after}
    mine, theirs = (now - then for now, then in zip(_own(), ours, strict=True))
    return {"clock": clock, "processors": mine + theirs, "of it Python": mine, **each}


def _own() -> tuple[float, float]:
    """Seconds of processors, of this process, and of all that it started and that has ended."""
    mine, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return mine.ru_utime + mine.ru_stime, theirs.ru_utime + theirs.ru_stime


def _ours(conn: psycopg.Connection, sandbox: str) -> None:
    os.environ["BATON_SANDBOX"] = sandbox
    settings.cache_clear()
    chain = Chain(conn, lambda: (), f"turns-{uuid4()}")
    chain.build(BUILD)
    chain.chat(ASK)


def _bare(place: Path) -> None:
    (place / "workspace").mkdir(parents=True)
    (place / "workspace" / "a.txt").write_text("a")
    session: str | None = None
    for prompt in PROMPTS:
        session = asyncio.run(_turn(place, prompt, session))


async def _turn(place: Path, prompt: str, parent: str | None) -> str:
    minted = str(uuid4())
    options = ClaudeAgentOptions(
        cli_path=cli(),
        cwd=place / "workspace",
        resume=parent,
        fork_session=parent is not None,
        session_id=minted,
        setting_sources=[],
        tools=["Bash", "Edit", "Glob", "Grep", "Read", "Write"],
        permission_mode="acceptEdits",
        env={
            "CLAUDE_CONFIG_DIR": str(place / "config"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
            "DISABLE_TELEMETRY": "1",
            "DISABLE_AUTOUPDATER": "1",
        },
    )
    async for _ in query(prompt=prompt, options=options):
        pass
    return minted


def _print(console: Console, took: dict[str, list[Took]]) -> None:
    columns = list(took["box"][0])
    title = f"Four turns, seconds, median of {TIMES} (ratio to bare, of pairs); load {os.getloadavg()[0]:.1f}"
    table = Table(title=title)
    for column in ("", *columns):
        table.add_column(column)
    for way, each in took.items():
        cells = (
            "" if way == "box" and column in UNKNOWN else _cell(took["bare"], each, column)
            for column in columns
        )
        table.add_row(way, *cells)
    console.print(table)


def _cell(bare: list[Took], each: list[Took], column: str) -> str:
    told = f"{statistics.median(one[column] for one in each):.2f}"
    if column not in ("clock", "processors") or bare is each:
        return told
    ratios = [b[column] / a[column] for a, b in zip(bare, each, strict=True)]
    return f"{told} ({statistics.median(ratios):.2f})"


def _tell(console: Console, conn: psycopg.Connection, redis_url: str) -> None:
    """What a turn of ours asks of Postgres and of Redis, of as many chains again."""
    before = _ledger(conn, redis_url)
    for _ in range(TIMES):
        _ours(conn, "off")
    after = _ledger(conn, redis_url)
    table = Table(
        title=f"A turn of ours, mean of {TIMES * len(PROMPTS)}; without Celery and relay"
    )
    for name in after:
        table.add_column(name)
    turns = TIMES * len(PROMPTS)
    table.add_row(*(f"{(after[name] - before[name]) / turns:.1f}" for name in after))
    console.print(table)


def _ledger(conn: psycopg.Connection, redis_url: str) -> dict[str, float]:
    conn.execute("select pg_stat_force_next_flush()")
    time.sleep(FLUSHED)  # the others' counts are told when they are idle
    row = conn.execute(
        """
        select (select wal_bytes from pg_stat_wal) / 1000, (select wal_records from pg_stat_wal),
               xact_commit, tup_inserted, tup_updated, tup_deleted
          from pg_stat_database where datname = current_database()
        """
    ).fetchone()
    assert row
    names = ("WAL, kB", "WAL records", "transactions", "inserted", "updated", "deleted")
    with Redis.from_url(redis_url) as redis:
        stats = cast(dict[str, dict[str, int]], redis.info("commandstats"))
    trips = sum(each["calls"] for each in stats.values())
    return dict(zip(names, map(float, row), strict=True)) | {"Redis commands": float(trips)}
