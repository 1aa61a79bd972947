"""What a worker's main process has to write into the ledger, without ever waiting for it.

Celery's main loop hands messages to the pool, answers its broker and hears of revokes: while
it waits, nothing of the worker goes on. So a thread writes, again and again until it is
written.
"""

import queue
import threading
import time
from collections.abc import Callable
from functools import cache
from itertools import count

import structlog
from psycopg import Connection

from db.core import pool
from db.core.outages import is_away, is_stopped
from db.core.pool import NoDatabase

log = structlog.get_logger()

Note = Callable[[Connection], object]
MOST = 10_000  # notes that wait; Postgres is away for long if there are so many
AGAIN = 1.0  # seconds until it is tried again
TRIES = 10  # of a note that Postgres stops, though it answers


class Notes:
    """Notes that wait to be written, and the thread that writes them, begun with the first."""

    def __init__(self) -> None:
        self._waiting = queue.Queue[Note](MOST)
        self._begun = threading.Lock()
        self._ended = threading.Event()

    def write(self, note: Note) -> bool:
        """Have it written soon; it may be written twice. False when too many wait already."""
        try:
            self._waiting.put_nowait(note)
        except queue.Full:
            return False
        if self._begun.acquire(blocking=False):
            threading.Thread(target=self._for_good, name="notes", daemon=True).start()
        return True

    def written(self, within: float) -> bool:
        """Whether nothing waits any more; waited for so many seconds."""
        end = time.monotonic() + within
        while self._waiting.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.05)
        return not self._waiting.unfinished_tasks

    def end(self) -> None:
        """Write no more: what waits is lost."""
        self._ended.set()

    def _for_good(self) -> None:
        while not self._ended.is_set():
            note = self._waiting.get()
            for tried in count(1):
                if _written(note, last=tried >= TRIES):
                    break
                if self._ended.wait(AGAIN):
                    return
            self._waiting.task_done()


def _written(note: Note, *, last: bool) -> bool:
    try:
        with pool.connect() as conn:
            note(conn)
    except Exception as exc:
        away = isinstance(exc, NoDatabase) or is_away(exc)
        if away or (is_stopped(exc) and not last):
            log.warning("note.not_written", error=str(exc))
            return False
        # What is never taken is let go: others wait behind it.
        log.exception("note.lost", error=type(exc).__name__)
    return True


@cache
def notes() -> Notes:
    """This process's."""
    return Notes()
