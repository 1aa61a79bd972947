"""Clean-up in a worker: its messages are read beside the jobs', and done beside the agents.

Celery's main loop only hands them to a thread (worker/broker/periodic.py says why). What is done twice,
or left out, is made up for: each period is claimed in Postgres (tasks/upkeep.py).
"""

import queue
import threading
import time
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

import structlog
from celery import Celery, bootsteps
from kombu import Consumer, Exchange, Queue
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from worker.broker import periodic
from worker.process import drain

log = structlog.get_logger()

UPKEEP = Queue(periodic.QUEUE, Exchange(periodic.QUEUE), routing_key=periodic.QUEUE)


class Chores:
    """What is to be done, and the thread that does it, begun with the first."""

    def __init__(self, app: Celery, hostname: str) -> None:
        self._app, self._hostname = app, hostname
        self._waiting = queue.Queue[tuple[str, str]](periodic.MOST)
        self._begun = threading.Lock()

    def do(self, name: str, task_id: str) -> None:
        """Have the task done soon. One too many is left to the next period."""
        with suppress(queue.Full):
            self._waiting.put_nowait((name, task_id))
        if self._begun.acquire(blocking=False):
            threading.Thread(target=self._for_good, name="upkeep", daemon=True).start()

    def _for_good(self) -> None:
        while not drain.draining():
            self._one(*self._waiting.get())

    def _one(self, name: str, task_id: str) -> None:
        self._show("received", task_id, name=name, args="()", kwargs="{}")
        self._show("started", task_id)
        began = time.monotonic()
        try:
            self._app.tasks[name].run()
        except Exception as exc:  # one that fails is tried again in the next period
            log.warning("upkeep.not_done", task=name, error=f"{type(exc).__name__}: {exc}")
            self._show("failed", task_id, exception=type(exc).__name__)
        else:
            self._show("succeeded", task_id, result="None", runtime=time.monotonic() - began)

    def _show(self, state: str, task_id: str, **fields: Any) -> None:
        """Tell Flower, if somebody listens."""
        events: Any = self._app.events
        with (
            suppress(KombuError, RedisError, OSError),
            events.default_dispatcher(hostname=self._hostname) as dispatcher,
        ):
            dispatcher.send(f"task-{state}", uuid=task_id, **fields)


class Aside(bootsteps.ConsumerStep):
    """Reads the queue of clean-up on a channel of its own, whatever the slots are at."""

    def __init__(self, consumer: Any, **more: Any) -> None:
        super().__init__(consumer, **more)
        self._chores = Chores(consumer.app, consumer.hostname)

    def get_consumers(self, channel: Any) -> list[Consumer]:
        return [Consumer(channel, queues=[UPKEEP], on_message=self._hear)]

    def _hear(self, message: Any) -> None:
        message.ack()
        given: object = message.headers
        headers = cast(dict[str, Any], given) if isinstance(given, dict) else {}
        name, task_id = str(headers.get("task")), str(headers.get("id") or uuid4())
        if name in (f"{periodic.PREFIX}{one}" for one in periodic.NAMES):
            self._chores.do(name, task_id)
        else:
            log.warning("message.unreadable", queue=periodic.QUEUE)


def attend(app: Celery) -> None:
    """Let the app's workers do clean-up aside."""
    app.steps["consumer"].add(Aside)
