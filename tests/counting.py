"""What a piece of work costs, counted from outside of it: statements and waits on the wire to
Postgres, processes by Python's audit hook, trips to Redis by Redis' own count; and what a connection
reads of our tables, by Postgres' own count.

    with counting(wire, redis_url) as counted:
        ...
    assert counted.statements <= 25
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString, cast

import redis
from psycopg import Connection

from tests.faults.wire import Wire

# Of the transaction that asks: what others read, and what is not yet reported, is not in it.
READ: LiteralString = """
    select coalesce(sum(pg_stat_get_xact_tuples_returned(oid)), 0)::int from pg_class
     where relnamespace = 'public'::regnamespace and relkind in ('r', 'i')"""


@dataclass
class Counted:
    """What was counted; `asked` and `commands` are the texts, for whoever looks for one too many."""

    asked: list[str] = field(default_factory=list[str])
    waits: int = 0
    commands: list[list[str]] = field(default_factory=list[list[str]])
    redis_trips: int = 0

    @property
    def statements(self) -> int:
        return len(self.asked)

    @property
    def gits(self) -> int:
        """Processes of git: each of ours is begun by setpriv, where there is one."""
        return sum("git" in [Path(word).name for word in each] for each in self.commands)


_begun: list[list[str]] | None = None


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and _begun is not None:
        _begun.append([str(word) for word in args[1]])


sys.addaudithook(_hear)  # it cannot be taken away; it hears nothing while nobody counts


@contextmanager
def counting(wire: Wire, redis_url: str) -> Generator[Counted]:
    """Count what goes on inside the block; complete once the block has ended."""
    global _begun
    counted = Counted()
    with redis.Redis.from_url(redis_url) as client:
        before, asked, waits = _reads(client), len(wire.asked), wire.waits
        _begun = counted.commands
        try:
            yield counted
        finally:
            _begun = None
        counted.asked = wire.asked[asked:]
        counted.waits = wire.waits - waits
        counted.redis_trips = _reads(client) - before - 1


def _reads(client: "redis.Redis") -> int:
    return cast(dict[str, int], client.info("stats"))["total_reads_processed"]


@dataclass
class Read:
    """Rows of tables, and entries of indexes, that were read."""

    rows: int = 0


@contextmanager
def reading(conn: Connection) -> Generator[Read]:
    """Count what this connection reads inside the block, one transaction; complete once it has ended.

    Vacuum first: an index of a test's database has entries of rows that tests before have deleted.
    """
    read = Read()
    with conn.transaction():
        before = _rows(conn)
        yield read
        read.rows = _rows(conn) - before


def _rows(conn: Connection) -> int:
    ((count,),) = conn.execute(READ).fetchall()
    return count
