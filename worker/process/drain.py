"""Draining: a worker that was told to stop takes no new job and gives the running ones a while.

Celery tells its pool children nothing of a warm shutdown, so the main process leaves
the moment in shared memory, made before the fork; children read it with their lease.
Told a second time, it gives no grace any more.
"""

import time
from multiprocessing import Value

from config.settings import settings

_began = Value("d", 0.0, lock=False)  # monotonic; the clock is one for all processes
_hurry = Value("b", 0, lock=False)


def begin() -> None:
    """The worker was told to stop, or told again."""
    if _began.value:
        _hurry.value = 1
    else:
        _began.value = time.monotonic()


def draining() -> bool:
    """Whether no new job is to be begun."""
    return _began.value > 0


def wait(seconds: float) -> None:
    """Wait so long, or until the worker is told to stop."""
    end = time.monotonic() + seconds
    while not draining() and time.monotonic() < end:
        time.sleep(0.2)


def overdue() -> bool:
    """Whether the grace is over: what still runs is stopped and goes back to the queue."""
    grace = settings().drain_grace.total_seconds()
    return draining() and (bool(_hurry.value) or time.monotonic() - _began.value > grace)
