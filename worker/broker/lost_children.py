"""Noticing a killed pool child soon, because its message keeps a slot from others.

Celery waits 10 s for what a dead child may still have said, and looks every 5 s. Until then
the child's message counts as one that is being worked on, so that a worker whose other
slots are busy fetches none: not even the one for the job that was rescued. A job's result
is in its row; there is nothing to wait for.

A child that somebody has stopped (SIGSTOP) is killed once its job is another's for long: left
alone it would keep its slot for hours.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import structlog
from celery import Celery, bootsteps

from config.settings import settings
from worker.process import identity

log = structlog.get_logger()

WAIT = 0.5  # seconds for a dead child's last word: a task may just have ended
LOOK_EVERY = 0.5  # seconds
STOPPED_EVERY = 2.0  # seconds between two looks for those that are stopped
LEASES = 2  # so many of them a child may stay stopped


@dataclass
class StoppedChildren:
    """Since when (monotonic seconds) each child is seen to be stopped."""

    seen: dict[int, float] = field(default_factory=dict[int, float])

    def kill(self, children: Iterable[int]) -> None:
        """Kill those of these that were stopped for too long."""
        now, longest = time.monotonic(), LEASES * settings().lease.total_seconds()
        self.seen = {pid: self.seen.get(pid, now) for pid in children if identity.stopped(pid)}
        for pid, since in self.seen.items():
            if now - since > longest:
                log.warning("child.killed", error="It was stopped, and so was its job's slot.")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class Look(bootsteps.StartStopStep):
    """Has the pool look after its children more often than Celery does."""

    requires = ("celery.worker.components:Pool",)

    def register_with_event_loop(self, worker: Any, hub: Any) -> None:
        children: Any = getattr(worker.pool, "_pool", None)
        if hasattr(children, "maintain_pool"):  # other pools have no children
            hub.call_repeatedly(LOOK_EVERY, children.maintain_pool)
            stopped = StoppedChildren()
            hub.call_repeatedly(STOPPED_EVERY, lambda: stopped.kill(_pids(children)))


def _pids(children: Any) -> list[int]:
    return [child.pid for child in children._pool]


def attend(app: Celery) -> None:
    """Let the app's workers notice losses soon."""
    app.conf.worker_lost_wait = WAIT
    app.steps["worker"].add(Look)
