"""Who is in the way of a change to the schema, and in whose way it is.

A thread looks on from a connection beside the one that works. It notes who holds what that
one waits for; and when others have waited for it for LONGEST it has it let go. Each look is a
transaction of its own: an index that is built may wait for the end of any that has looked.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
from psycopg import Connection
from psycopg.rows import class_row

LONGEST = 0.25  # seconds for which others may wait for what is done here
EVERY = 0.05  # seconds between two looks
CANCEL = 5.0  # seconds for a cancel to reach the server

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Holder:
    """A process of Postgres that holds something; its transaction is open for `seconds`.

    A role sees no more than the number of another's process, unless it may.
    """

    pid: int
    program: str | None
    role: str | None
    seconds: float | None
    since: datetime | None

    def __str__(self) -> str:
        if not self.pid:
            return "a prepared transaction (see pg_prepared_xacts)"
        known = [self.program or "", f"of {self.role}" if self.role else ""]
        if self.seconds is not None:
            known.append(f"in a transaction for {self.seconds:.0f} s")
        told = " ".join(part for part in known if part)
        return f"pid {self.pid}" + (f" ({told})" if told else "")


@dataclass
class Obstacles:
    """What was seen while something was done by the process `us`; 0: not to be looked for."""

    us: int = 0
    holders: list[Holder] = field(default_factory=list[Holder])
    since: float | None = None  # monotonic seconds; since when these hold us up
    waited_for: bool = False  # others waited for us, and we let go

    def __str__(self) -> str:
        if self.holders:
            return f"{' and '.join(map(str, self.holders))} holds what it needs"
        return "others waited for it" if self.waited_for else "somebody holds what it needs"


@dataclass(frozen=True, slots=True)
class Lookout:
    """Looks on from the connection `beside`, which has no transaction open."""

    beside: Connection

    @contextmanager
    def over(
        self, conn: Connection, look: Callable[["Lookout", Obstacles], bool]
    ) -> Generator[Obstacles]:
        """Look on until the block ends; when `look` is true, what `conn` executes is cancelled."""
        seen, ended = Obstacles(), threading.Event()

        def look_on() -> None:
            with suppress(psycopg.Error):  # nobody looks then: the time-out of locks is left
                while not ended.wait(EVERY):
                    if seen.us and look(self, seen):
                        conn.cancel_safe(timeout=CANCEL)

        thread = threading.Thread(target=look_on, daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            ended.set()
            thread.join()

    def for_others(self, seen: Obstacles) -> bool:
        """Note who holds us up. True: others have waited for us long enough."""
        now = self._holders(seen.us)
        waits = self.beside.execute(WAITED_FOR, {"us": seen.us, "longest": LONGEST})
        if now or waits.rowcount:  # else it may have ended between two looks
            seen.holders, seen.waited_for = now, waits.rowcount > 0
        return seen.waited_for

    def hold_still(self, holders: list[Holder]) -> bool:
        """Whether one of them is in the transaction yet in which it was seen."""
        given = {"pids": [one.pid for one in holders], "since": [one.since for one in holders]}
        return self.beside.execute(STILL, given).rowcount > 0

    def for_us(self, seen: Obstacles) -> None:
        """Note who holds us up, and since when the same ones do."""
        now = self._holders(seen.us)
        same = {one.pid for one in now} & {one.pid for one in seen.holders}
        if not same or seen.since is None:
            seen.since = time.monotonic() if now else None
        seen.holders = now

    def building(self, seen: Obstacles) -> str:
        """How far the index is that we build, in words; empty if we build none."""
        row = self.beside.execute(PROGRESS, (seen.us,)).fetchone()
        return f"{row[0]}, {row[1]} %" if row else ""

    def _holders(self, us: int) -> list[Holder]:
        with self.beside.cursor(row_factory=class_row(Holder)) as cur:
            return cur.execute(HOLDERS, (us,)).fetchall()


HOLDERS = """
    select h.pid, a.application_name as program, a.usename as role,
           extract(epoch from clock_timestamp() - a.xact_start)::float as seconds,
           a.xact_start as since
      from unnest(pg_blocking_pids(%s)) as h (pid) left join pg_stat_activity a using (pid)
     order by a.xact_start nulls last"""

STILL = """
    select from unnest(%(pids)s::int[], %(since)s::timestamptz[]) as h (pid, since)
      join pg_stat_activity a on a.pid = h.pid and a.xact_start is not distinct from h.since"""

# Whoever works with the database, not its own housekeeping.
WAITED_FOR = """
    select from pg_locks w left join pg_stat_activity a using (pid)
     where not w.granted and w.pid <> %(us)s
       and w.waitstart < clock_timestamp() - make_interval(secs => %(longest)s)
       and a.backend_type is distinct from 'autovacuum worker'
       and %(us)s = any (pg_blocking_pids(w.pid)) limit 1"""

PROGRESS = """
    select phase, coalesce(round(100.0 * greatest(blocks_done, tuples_done, lockers_done)
                       / nullif(greatest(blocks_total, tuples_total, lockers_total), 0)), 0)::int
      from pg_stat_progress_create_index where pid = %s"""
