"""A fleet of the oldest release that could have jobs, at work on the schema as it changes under it.

What it sends is what the workers and the relay of that release sent, word for word (old_time/):
publish, claim, begin a turn, commit it. Producers ask beside it, and one of them leaves its
transaction open for a while, time and again. Everything that waits for a lock is seen from beside.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection
from psycopg.types.json import Jsonb

SAID = Path(__file__).with_name("old_time")
TAKE_DUE, CLAIM, BEGIN, ADVANCE = (
    (SAID / f"{name}.sql").read_bytes() for name in ("take_due", "claim", "begin", "advance")
)
NAME = "old fleet"
OPEN = 1.5  # seconds for which a producer leaves its transaction open
LOOK = 0.02  # seconds between two looks at who waits

# What a turn is said to have used, and no more than that.
PLAIN: dict[str, Any] = {
    **dict.fromkeys(("input_tokens", "output_tokens", "context_tokens", "num_turns"), 10),
    **dict.fromkeys(("cache_read_tokens", "cache_creation_tokens", "duration_ms"), 10),
    **dict.fromkeys(("reason", "tree", "summary", "model", "cli_version", "version_id")),
    **dict.fromkeys(("next_id", "next_kind", "next_args")),
    **dict.fromkeys(("chat_plan", "compacted", "new_version"), False),
    "final": True,
    "wake": True,
    "raw_cost_usd": 1.0,
    "publish_after": timedelta(seconds=2),
}


@dataclass
class Seen:
    """What came of it: statements with the seconds each took, jobs done, the longest wait."""

    took: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    done: int = 0
    asked: int = 0
    waited: float = 0.0  # seconds, for a lock of somebody who is not of the fleet
    wrong: list[str] = field(default_factory=list[str])

    def longest(self) -> tuple[float, str]:
        """The statement that took longest, in seconds."""
        return max((max(each), name) for name, each in self.took.items())


@contextmanager
def at_work(dsn: str, *, workers: int = 2, producers: int = 2) -> Generator[Seen]:
    """Let the fleet work until the block ends; whoever fails says so in `wrong`."""
    seen, ended = Seen(), threading.Event()

    def until_the_end(each: Callable[[Connection, Seen], None]) -> None:
        try:
            with _connect(dsn) as conn:
                while not ended.is_set():
                    each(conn, seen)
        except Exception as exc:  # whatever it is: the test is to fail with it
            seen.wrong.append(f"{each.__name__}: {exc}")

    roles = [*[_work] * workers, *[_ask] * producers, _ask_for_long, _look]
    threads = [threading.Thread(target=until_the_end, args=(role,)) for role in roles]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _connect(dsn: str) -> Connection:
    return psycopg.connect(dsn, autocommit=True, prepare_threshold=0, application_name=NAME)


@contextmanager
def _timed(seen: Seen, name: str) -> Generator[None]:
    began = time.monotonic()
    yield
    seen.took.setdefault(name, []).append(time.monotonic() - began)


def _work(conn: Connection, seen: Seen) -> None:
    """What relay and worker do: publish two jobs, and run each of them."""
    pauses = {"pause": timedelta(seconds=2), "longest": timedelta(minutes=5)}
    with _timed(seen, "publish"):
        due = conn.execute(
            TAKE_DUE, {"room": 2, "look_again": timedelta(seconds=2), **pauses}
        ).fetchall()
    for job_id, *_ in due:
        _run(conn, seen, job_id)


def _run(conn: Connection, seen: Seen, job_id: UUID) -> None:
    asked = {
        "id": job_id,
        "attempt": uuid4(),
        "lease": timedelta(seconds=30),
        "pid": 1,
        "worker_id": "w",
        "host": "h",
        "boot": "b",
        "pid_started": 1,
        "credential": "c",
        "workspaces": "/srv",
    }
    with _timed(seen, "claim"):
        row = conn.execute(CLAIM, asked).fetchone()
    if row is None:
        return
    project, head, minted = row[4], row[14], str(uuid4())
    ours = {"job": job_id, "attempt": asked["attempt"], "project": project, "step": "build"}
    tries = Jsonb([{"session": head, "outcome": "trying", "reason": None}])
    with _timed(seen, "begin"):
        conn.execute(BEGIN, {**ours, "parent": head, "minted": minted, "tries": tries})
    told = [
        {"type": kind, "job": str(job_id), "body": None}
        for kind in ("session.moved", "job.done")
    ]
    moved = {
        "id": job_id,
        "attempt": asked["attempt"],
        "step": "build",
        "old": head,
        "new": minted,
        "parent": head,
        "minted": minted,
        "was_fresh": False,
        "relation": "forked" if head else "fresh",
        "source": "update" if head else "build",
        "result": Jsonb({}),
        "chat": Jsonb([]),
        "events": Jsonb(told),
    }
    with _timed(seen, "commit"):
        done = conn.execute(ADVANCE, PLAIN | moved).fetchall()
    assert done, f"job {job_id} was not committed"
    seen.done += 1


def _ask(conn: Connection, seen: Seen) -> None:
    with _timed(seen, "enqueue"):  # of a project of its own: no other producer is waited for
        conn.execute("select baton_enqueue('build', %s, 'new', 'make it')", (f"new-{uuid4()}",))
    seen.asked += 1
    time.sleep(0.005)


def _ask_for_long(conn: Connection, seen: Seen) -> None:
    """Ask within a transaction that does something else for a while."""
    with conn.transaction():
        _ask(conn, seen)
        time.sleep(OPEN)
    time.sleep(OPEN / 2)


def _look(conn: Connection, seen: Seen) -> None:
    row = conn.execute(
        """
        select extract(epoch from max(clock_timestamp() - l.waitstart))::float
          from pg_locks l join pg_stat_activity a using (pid)
         where not l.granted and a.application_name = %(fleet)s
           and exists (select from pg_stat_activity b
                        where b.pid = any (pg_blocking_pids(a.pid))
                          and b.application_name <> %(fleet)s)
        """,
        {"fleet": NAME},
    ).fetchone()
    seen.waited = max(seen.waited, row[0] or 0.0) if row else seen.waited
    time.sleep(LOOK)
