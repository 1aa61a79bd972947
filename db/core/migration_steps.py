"""How a step of a migration is applied while others are at work: nobody waits for it for long.

    in a transaction   a lock is asked for 0.2 s: who comes after us stands behind us as long.
                       When it is not to be had, or others have waited for us, nothing is done,
                       and it is tried again after a pause, or when who was in the way is gone
    in batches         the same for each batch: the rows of one are locked while it lasts
    by itself          nobody waits for it; it waits for those who were there before

Whom it waits for is told, and after PATIENCE it ends with a sentence. What is half done then, or
after a Ctrl-C, the next run takes up.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg
from psycopg import Connection, errors, sql

from db.core.lookout import Lookout, Obstacles, Tell
from db.core.migration_files import Step, Walk

TIMEOUT = "200ms"  # for a lock
PATIENCE = 300.0  # seconds in all for one transaction, or for those who hold up one by itself
PAUSES = (0.3, 1.0, 2.0, 4.0)  # seconds between two tries; the last again and again
POLL = 0.1  # seconds
SHORT = 1.0  # seconds of which nobody is told
AGAIN = 10.0  # seconds until the same is told again

T = TypeVar("T")
GAVE_WAY = (errors.LockNotAvailable, errors.QueryCanceled, errors.DeadlockDetected)


class HeldUp(Exception):
    """A step was not done, and nothing of it is left; the text says why and what to do."""


@dataclass
class Hand:
    """Applies steps on `conn`; what it waits for, and how far it is, it tells."""

    conn: Connection
    lookout: Lookout
    tell: Tell
    patience: float = PATIENCE
    _told: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])

    def apply(self, name: str, step: Step, record: Callable[[], None]) -> None:
        """Apply a step of the file `name`, and have it recorded: in its own transaction, if it
        has one. Raises HeldUp."""
        if step.kind == "by itself":
            self._by_itself(name, step)
            self.gently(name, record)
        elif step.walk:
            self._in_batches(name, step.text, step.walk)
            self.gently(name, record)
        else:
            self.gently(name, lambda: (_run(self.conn, step.text), record()))

    def gently(self, name: str, work: Callable[[], T]) -> T:
        """Do the work in a transaction of its own, in as many tries as it needs. Raises HeldUp."""
        began, tries = time.monotonic(), 0
        while True:
            with self.lookout.over(self.conn, Lookout.for_others) as seen:
                try:
                    with self.conn.transaction():
                        seen.us = self._begin()
                        return work()
                except GAVE_WAY as exc:
                    if time.monotonic() - began > self.patience:
                        raise HeldUp(self._why(name, seen)) from exc
            self._say(name, "tried", f"{seen}: it is tried again.")
            self._rest(seen, PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1

    def _rest(self, seen: Obstacles, pause: float) -> None:
        """Let the others go on, until whoever held us up is gone, or for that long."""
        until = time.monotonic() + pause
        time.sleep(PAUSES[0])
        while time.monotonic() < until and (
            not seen.holders or self.lookout.hold_still(seen.holders)
        ):
            time.sleep(POLL)

    def _begin(self) -> int:
        """Ask for no lock for long from here on; which process we are."""
        row = self.conn.execute(
            "select pg_backend_pid(), set_config('lock_timeout', %s, true)", (TIMEOUT,)
        ).fetchone()
        assert row
        return row[0]

    def _in_batches(self, name: str, text: str, walk: Walk) -> None:
        statement, done, last = _between(text), 0, None
        about, began = self._about(walk), time.monotonic()

        def batch() -> tuple[object, int]:
            first, upto, rows = self._next(walk, last)
            if rows:
                self.conn.execute(statement, {"first": first, "last": upto})
            return upto, rows

        while True:
            upto, rows = self.gently(name, batch)
            if not rows:
                return
            last, done = upto, done + rows
            if time.monotonic() - began >= SHORT:
                told = f"{done} of about {max(about, done)} rows of {walk.table}."
                self._say(name, "done", told)

    def _next(self, walk: Walk, last: object) -> tuple[object, object, int]:
        """The first and last key of the next rows, and how many they are."""
        names = {"key": sql.Identifier(walk.key), "table": sql.Identifier(walk.table)}
        above = sql.SQL("where {key} > %(last)s" if last is not None else "").format(**names)
        row = self.conn.execute(
            sql.SQL(
                "select (array_agg(key order by key))[1], (array_agg(key order by key desc))[1],"
                " count(*) from (select {key} as key from {table}"
                " {above} order by {key} limit %(size)s) batch"
            ).format(above=above, **names),
            {"last": last, "size": walk.size},
        ).fetchone()
        assert row
        return row

    def _about(self, walk: Walk) -> int:
        row = self.conn.execute(
            "select reltuples::bigint from pg_class where oid = to_regclass(quote_ident(%s))",
            (walk.table,),
        ).fetchone()
        return row[0] if row else 0

    def _by_itself(self, name: str, step: Step) -> None:
        """Execute the statement, after what a try that broke off has left of its index."""
        began = time.monotonic()
        while True:
            if self.conn.execute(INVALID, (step.index,)).rowcount:
                self._say(
                    name, "done", f"{step.index} was not built to its end: it is made anew."
                )
                self._outside(name, f"drop index concurrently if exists {step.index}")
            try:
                return self._outside(name, step.text)
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                if time.monotonic() - began > self.patience:
                    raise

    def _outside(self, name: str, statement: str) -> None:
        """Execute it outside of a transaction, for as long as it is not held up."""

        def look(lookout: Lookout, seen: Obstacles) -> bool:
            return self._look(name, lookout, seen)

        with self.lookout.over(self.conn, look) as seen:
            seen.us = self._direct()
            try:
                # Not by a cursor of the connection's own, which may open a transaction.
                psycopg.Cursor(self.conn).execute(
                    statement.encode(), prepare=False
                )  # query: a file of ours
            except errors.QueryCanceled as exc:
                raise HeldUp(self._why(name, seen)) from exc

    def _direct(self) -> int:
        """Which process we are; 0 behind a pooler, where the next statement is another's."""
        told = self.conn.info.backend_pid
        return told if self.conn.execute("select pg_backend_pid()").fetchone() == (told,) else 0

    def _look(self, name: str, lookout: Lookout, seen: Obstacles) -> bool:
        """Tell how far it is, or whom it waits for. True: it has waited long enough."""
        lookout.for_us(seen)
        if seen.since is None:
            if how_far := lookout.building(seen):
                self._say(name, "done", f"{how_far}.")
            return False
        waits = time.monotonic() - seen.since
        if waits >= SHORT:
            self._say(name, "tried", f"{seen}: it waits.")
        return waits > self.patience

    def _why(self, name: str, seen: Obstacles) -> str:
        if seen.holders:
            return (
                f"{name} was not applied within {self.patience:g} s: {seen}. End that, or wait for"
                " its end, and migrate again: what was applied stays."
            )
        if seen.waited_for:
            return (
                f"{name} takes longer than others can wait for it, and no moment for it was found"
                f" in {self.patience:g} s: stop what works with the database, and migrate again."
            )
        return (
            f"{name} was cancelled, by somebody or by the server's statement_timeout: give this"
            " role none (alter role … set statement_timeout = 0), and migrate again."
        )

    def _say(self, name: str, about: str, text: str) -> None:
        """Tell it, unless something of the kind was told just now."""
        now = time.monotonic()
        if now - self._told.get((name, about), float("-inf")) >= AGAIN:
            self._told[name, about] = now
            self.tell(f"{name}: {text}")


# Of our schema, what a build left that did not come to its end.
INVALID = """
    select from pg_class c join pg_index i on i.indexrelid = c.oid
     where c.relname = %s and c.relnamespace = current_schema()::regnamespace
       and not i.indisvalid"""


def _between(text: str) -> bytes:
    """The statement with its keys as parameters."""
    return re.sub(r"(?<!:):(first|last)\b", r"%(\1)s", text.replace("%", "%%")).encode()


def _run(conn: Connection, text: str) -> None:
    """Execute text of ours; prepare=False lets it hold several statements."""
    conn.execute(text.encode(), prepare=False)  # query: text of our files
