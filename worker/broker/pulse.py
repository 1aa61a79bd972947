"""Beat's own pulse: that its scheduler goes round is written down, apart from what comes of it.

A beat may be up and wedged, or paused, or start again and again; and its ticks may be done by
nobody. So a row says when the scheduler last looked at what is due (db/jobs/beats.py), and the ticks
say what workers did. What is due is asked for at each start: one that never lives for a whole
period asks for it all the same, and each period is done once however often it is asked for.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import structlog
from psycopg import Connection

from db.core import pool
from db.core.pool import NoDatabase
from db.jobs import beats

log = structlog.get_logger()

ROUND = 5.0  # seconds at the most until the scheduler looks again
WRITE_EVERY = 5.0  # seconds


class Pulse:
    """When the scheduler last went round, and the thread that writes it down."""

    def __init__(self) -> None:
        self._id, self._went = uuid4(), threading.Event()

    def felt(self, tick: Callable[[], float]) -> Callable[[], float]:
        """The scheduler's tick, which is noted."""

        def noted() -> float:
            pause = tick()
            self._went.set()
            return pause

        return noted

    def write_for_good(self) -> None:
        """Write each WRITE_EVERY that it went round, if it did."""
        forgot = False
        while True:
            self._went.wait()
            self._went.clear()
            try:
                with pool.connect() as conn:
                    self._write(conn)
                    forgot = forgot or _forget(conn)
            except (NoDatabase, psycopg.Error) as exc:
                log.warning("beat.not_reported", error=str(exc))
            time.sleep(WRITE_EVERY)

    def _write(self, conn: Connection) -> None:
        beats.report(conn, self._id, socket.gethostname(), os.getpid())


def _forget(conn: Connection) -> bool:
    beats.forget_old(conn)
    return True


def begin(service: Any, every: timedelta) -> None:
    """A beat begins: everything is due, and its pulse is felt."""
    scheduler = service.scheduler
    for entry in scheduler.schedule.values():
        entry.last_run_at = entry.default_now() - every
    pulse = Pulse()
    scheduler.tick = pulse.felt(scheduler.tick)
    threading.Thread(target=pulse.write_for_good, name="pulse", daemon=True).start()
