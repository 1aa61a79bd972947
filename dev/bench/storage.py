"""`baton bench storage`: what a chain of turns takes up in Postgres, and what it costs to keep.

Every turn forks the whole history, as the CLI does: one append repeats it all, a few more
bring what is new. Beside it the naive way, a row of JSON for every entry of every fork.
The transcripts are made up, in the CLI's form; the Postgres is the one of `baton up`.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb
from rich.console import Console
from rich.table import Table

from db.core.migrate import migrate
from db.transcripts import appends, transcripts
from dev.bench.history import MB, PAIR, Entry, as_jsonl, forked, history, turn
from dev.stack.services import services
from dev.stack.up import EXPECTED

HISTORIES = (1, 10)  # MB
TURNS = 100
NEW = 4 * PAIR  # bytes that a turn adds, in as many appends as pairs
NAIVE = 5  # times that the last fork is stored the naive way; the others are reckoned by size
LOADS = 5
PROJECT = "bench"


def main(root: Path) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    table = Table(title=f"{TURNS} turns, each a fork that adds {NEW / 1000:.0f} kB; medians")
    for column in (
        *("history", "as JSON, each fork whole", "naive rows", "Baton", "of the naive"),
        *("fork", "append", "load"),
    ):
        table.add_column(column)
    try:
        with (
            tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as place,
            services(Path(place), database_url="", redis_url="") as running,
        ):
            migrate(running.database_url)
            with psycopg.connect(running.database_url, autocommit=True) as conn:
                for size in HISTORIES:
                    table.add_row(f"{size} MB", *_row(conn, size * MB))
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    table.caption = (
        "naive rows: the last fork stored as jsonb (compressed by Postgres), the others reckoned"
        " by their size; fork: the append that repeats the history; append: one of those that"
        " bring what is new"
    )
    console.print(table)
    return 0


def _row(conn: Connection, size: int) -> list[str]:
    conn.execute("truncate transcript_entries, transcript_batches, transcript_sessions")
    empty, session = _stored(conn), str(uuid4())
    entries, forks, appends = history(session, size), list[float](), list[float]()
    _append(conn, session, entries)
    whole = 0
    for number in range(TURNS):
        session = str(uuid4())
        entries = forked(entries, session)
        forks.append(_append(conn, session, entries))
        for part in range(NEW // PAIR):
            new = turn(session, entries[-1], PAIR, seed=number * 100 + part)
            appends.append(_append(conn, session, new))
            entries = entries + new
        whole += len(as_jsonl(entries))
    conn.execute("vacuum analyze transcript_entries, transcript_batches, transcript_sessions")
    ours, newest = _stored(conn) - empty, len(as_jsonl(entries))
    naive = _naive(conn, entries) * whole // newest
    loads = [_seconds(lambda: transcripts.load(conn, PROJECT, session)) for _ in range(LOADS)]
    return [
        _mb(whole),
        _mb(naive),
        _mb(ours),
        f"1/{naive / ours:.0f}",
        *(f"{statistics.median(took) * 1000:.0f} ms" for took in (forks, appends, loads)),
    ]


def _append(conn: Connection, session: str, entries: list[Entry]) -> float:
    def append() -> None:
        with conn.transaction():
            appends.append(conn, PROJECT, session, entries)

    return _seconds(append)


def _stored(conn: Connection) -> int:
    """Bytes of all tables of transcripts, indexes included."""
    row = conn.execute(
        "select sum(pg_total_relation_size(oid)) from pg_class"
        " where relkind = 'r' and relname like 'transcript%'"
    ).fetchone()
    return int(row[0]) if row else 0


def _naive(conn: Connection, entries: list[Entry]) -> int:
    """Bytes that a fork takes up as rows of JSON, by that of a few."""
    conn.execute("create temporary table naive (session text, n int, entry jsonb)")
    with conn.cursor() as cur:
        for fork in range(NAIVE):
            cur.executemany(
                "insert into naive values (%s, %s, %s)",
                [(str(fork), n, Jsonb(entry)) for n, entry in enumerate(entries)],
            )
    row = conn.execute("select pg_total_relation_size('naive')").fetchone()
    conn.execute("drop table naive")
    return int(row[0]) // NAIVE if row else 0


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _mb(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
