"""Ends a worker that is connected to its broker but deaf, so that its supervisor starts another.

A Celery worker may be up, answer to its broker, and yet take no message any more after the
broker was away. It is judged by what it does: messages wait, slots are free, and for
BATON_DEAF_AFTER none has come in.
"""

import contextlib
import os
import signal
import threading
import time
from typing import Any

import psutil
import redis
import structlog
from celery import signals
from celery.worker import state

from config.settings import settings
from worker.live.checkpoints import BROKER, client
from worker.process import drain

log = structlog.get_logger()

LOOK_EVERY = 2.0  # seconds
LAST_CALL = 15.0  # seconds after the grace; a deaf worker may hang in its own shutdown
EX_SOFTWARE = 70

_heard = time.monotonic()  # when a message came in last


@signals.task_received.connect
def _note(**_: Any) -> None:
    global _heard
    _heard = time.monotonic()


def start(queues: tuple[str, ...], slots: int) -> None:
    """Watch this worker, which runs `slots` jobs at a time from these queues."""
    threading.Thread(target=_watch, args=(queues, slots), name="watchdog", daemon=True).start()


def _watch(queues: tuple[str, ...], slots: int) -> None:
    looked = in_order = time.monotonic()
    while not drain.draining():
        paused = time.monotonic() - looked > 3 * LOOK_EVERY  # then it had no chance to hear
        looked = time.monotonic()
        if paused or not _passes_work_by(queues, slots):
            in_order = looked
        silent = time.monotonic() - max(in_order, _heard)
        if silent > settings().deaf_after.total_seconds():
            log.error("worker.deaf", seconds=round(silent))
            _end()
        drain.wait(LOOK_EVERY)


def _passes_work_by(queues: tuple[str, ...], slots: int) -> bool:
    if len(state.reserved_requests) >= slots:
        return False
    try:
        broker: Any = client(BROKER)
        return any(broker.llen(queue) for queue in queues)
    except (redis.RedisError, OSError):
        return False  # not deaf: cut off, and Celery tries again


def _end() -> None:
    """Drain; then go, and take along what is left below."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(settings().drain_grace.total_seconds() + LAST_CALL)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it went with one above it
            child.kill()
    os._exit(EX_SOFTWARE)
