"""A revoke, from Flower or anywhere, is a cancel in the ledger: durable, and for all workers.

It is written down first (db/jobs/messages.py), by whoever hears of it: Flower and Celery's command
line themselves, since they run our application; and of those that others send over the broker,
each worker, and each relay. Then the job is cancelled: as soon as its row is there, and nobody
holds it.
"""

import contextlib
import socket
import threading
from typing import Any
from uuid import UUID

import psycopg
import structlog
from celery.app.control import Control as CelerysControl
from celery.worker.control import control_command
from kombu.exceptions import KombuError
from psycopg import Connection
from redis.exceptions import RedisError

from db.core import pool
from db.core.pool import NoDatabase
from db.jobs import jobs, messages
from worker.process.notes import notes

log = structlog.get_logger()

COMMANDS = (
    "revoke",
    "terminate",
)  # the running attempt stops its own agent: one is as the other
TURN = 1.0  # seconds after which the listener looks whether it is to end
AGAIN = 3.0  # seconds until a broker that is away is tried again


class Control(CelerysControl):
    """Celery's control of workers; a revoke is written down before it is sent."""

    def broadcast(self, command: str, arguments: Any = None, *args: Any, **more: Any) -> Any:
        if command in COMMANDS:
            _write_here(_ids((arguments or {}).get("task_id")))
        return super().broadcast(command, arguments, *args, **more)


def _write_here(ids: list[UUID]) -> None:
    """Now, in this process. Where that cannot be, workers that hear of it try until it can."""
    try:
        with pool.connect() as conn:
            _take(conn, ids)
    except (NoDatabase, psycopg.Error) as exc:
        log.warning("revoke.not_written", error=type(exc).__name__)


def _take(conn: Connection, ids: list[UUID]) -> None:
    messages.revoke(conn, ids)
    messages.cancel_revoked(conn)


def _ids(given: Any) -> list[UUID]:
    """The jobs of these tasks."""
    tasks = [given] if isinstance(given, str) else list(given or ())
    return [job for task in tasks if (job := jobs.id_of_task(str(task)))]


def hear(given: Any) -> dict[str, str]:
    """Have it written down, without waiting for that. What Celery's command line prints."""
    ids = _ids(given)
    if not notes().write(lambda conn: _take(conn, ids)):
        log.error("revoke.lost", tasks=[str(each) for each in ids])
        return {"error": "Postgres is away and too much waits for it: use `baton cancel`."}
    return {"ok": f"to be cancelled: {', '.join(map(str, ids)) or 'nothing'}"}


@control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(_state: Any, task_id: Any, **_: Any) -> dict[str, str]:
    """Cancel jobs by the ids of their tasks."""
    return hear(task_id)


@control_command(
    name="terminate",
    variadic="task_id",
    args=[("signal", str)],
    signature="<signal> [id1 [id2 [... [idN]]]]",
)
def terminate(_state: Any, task_id: Any, **_: Any) -> dict[str, str]:
    """As revoke: a child of the pool that is killed would only have its job run once more."""
    return hear(task_id)


def listen_for_good(ended: threading.Event) -> None:
    """Hear what is sent to workers, while there may be none."""
    while not ended.is_set():
        try:
            _listen(ended)
        except (KombuError, RedisError, OSError) as exc:
            log.warning("revokes.not_heard", error=type(exc).__name__)
            ended.wait(AGAIN)


def _listen(ended: threading.Event) -> None:
    from worker.broker.publish import celery_app

    app: Any = celery_app()
    node = app.control.mailbox.Node(f"relay@{socket.gethostname()}")
    with app.connection_for_read() as broker:
        node.channel = broker.channel()
        with node.listen(callback=_heard):
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    broker.drain_events(timeout=TURN)


def _heard(body: Any, _message: Any) -> None:
    if isinstance(body, dict) and body.get("method") in COMMANDS:
        hear((body.get("arguments") or {}).get("task_id"))
