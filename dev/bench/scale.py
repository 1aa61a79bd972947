"""`baton bench scale`: what grows with the ledger, and what does not.

Two ledgers in one Postgres, the second a hundred times as large as the first (dev/bench/fill.py).
Each report, page, step of clean-up, deletion and statement of workers and relay is done in both by
turns, and what it took in the one is told beside what it took in the other. Postgres flushes
nothing here: it is work that is measured, not a disk.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg
from psycopg import Connection
from rich.console import Console
from rich.table import Table

from config.settings import settings
from db.core.migrate import migrate
from dev.bench.fill import Amount, fill
from dev.bench.scale_work import Work, works
from dev.stack.embedded import open_postgres
from dev.stack.up import EXPECTED
from worker.workspace import repositories, workspace

SMALL = 1000  # projects, each with 10 finished builds, 10 that wait, and 2 in the archive
TIMES = 7
QUICK = 5.0  # milliseconds; a quotient of what is quicker says nothing
REPOSITORIES = 10  # projects to one of which this host has files


def main(root: Path, *, projects: int) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    amounts = [Amount(SMALL), Amount(projects)]
    try:
        with (
            tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as place,
            open_postgres(Path(place), durable=False) as postgres,
            ExitStack() as opened,
        ):
            conns = [
                opened.enter_context(_filled(console, postgres.url, amount))
                for amount in amounts
            ]
            table = _table(amounts)
            for ours, theirs in zip(*map(works, amounts), strict=True):
                took = [
                    _timed(conn, work, number)
                    for number in range(TIMES + 1)
                    for conn, work in zip(conns, (ours, theirs), strict=True)
                ]
                _add(table, ours.name, took)
            _add(table, "look for repositories to tend", _looks(Path(place), amounts))
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    console.print(table)
    return 0


def _filled(console: Console, server: str, amount: Amount) -> Connection:
    """A connection to a ledger of that size."""
    name = f"of_{amount.projects}"
    with psycopg.connect(server, autocommit=True) as conn:
        conn.execute(f"create database {name}".encode())  # query: a number is in it
    url = f"{server.rpartition('/')[0]}/{name}"
    migrate(url)
    conn = psycopg.connect(url, autocommit=True, prepare_threshold=0)
    began = time.perf_counter()
    fill(conn, amount)
    took = time.perf_counter() - began
    console.print(f"{amount.projects} projects, {amount.jobs} jobs: filled in {took:.0f} s")
    return conn


def _timed(conn: Connection, work: Work, number: int) -> float:
    with work.prepared(conn, number) as do:
        return _milliseconds(do)


def _milliseconds(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return (time.perf_counter() - began) * 1000


def _looks(place: Path, amounts: list[Amount]) -> list[float]:
    """What upkeep's look takes at the repositories of a host, none of which is to be tended."""
    took = list[float]()
    roots = [place / f"workspaces-{n}" for n, _ in enumerate(amounts)]
    for root, amount in zip(roots, amounts, strict=True):
        for number in range(amount.projects // REPOSITORIES):
            git = root / workspace.OURS / f"project-{number}.git"
            for folder in range(256):
                (git / "objects" / f"{folder:02x}").mkdir(parents=True)
            (git / repositories.NOTES).touch()
    now = time.time() + 2 * repositories.OFTEN
    for _ in range(TIMES + 1):
        for root in roots:
            os.environ["BATON_WORKSPACES"] = str(root)
            settings.cache_clear()
            took.append(_milliseconds(lambda: repositories.due(now)))
    return took


def _table(amounts: list[Amount]) -> Table:
    table = Table(title=f"Milliseconds, median of {TIMES}")
    table.add_column()
    for amount in amounts:
        table.add_column(f"{amount.jobs} jobs, {amount.projects} projects", justify="right")
    table.add_column("times", justify="right")
    table.caption = f"-: both took less than {QUICK:g} ms"
    return table


def _add(table: Table, name: str, took: list[float]) -> None:
    """By turns of the small and the large; the first of each reads what is on the disk."""
    small, large = statistics.median(took[2::2]), statistics.median(took[3::2])
    times = f"{large / small:.1f}" if max(small, large) >= QUICK else "-"
    table.add_row(name, f"{small:.1f}", f"{large:.1f}", times)
