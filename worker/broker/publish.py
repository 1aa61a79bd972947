"""After a commit, best effort: messages for what is due, and the events' copy in Redis.

Nothing here may fail a job. A message that is lost is sent again by the relay; an event
that is lost is read from Postgres by whoever sees the gap.
"""

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import psycopg
import psycopg_pool
import redis
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from config.settings import settings
from db.core.events import Written
from db.core.pool import connection
from db.jobs import outbox
from db.jobs.lanes import Message
from worker.broker.bell import ring as ring
from worker.broker.queues import BELL, QUEUE
from worker.live.checkpoints import BROKER, PROGRESS, WAIT, client
from worker.process import crash_points

log = structlog.get_logger()


@cache
def celery_app() -> Celery:
    """Slow to import, and who publishes nothing needs none of it."""
    from worker.broker.app import app

    return app


def send(messages: Sequence[Message], *, answered: bool = False) -> int:
    """Publish wake-ups for these jobs; returns how many went out before the broker failed.
    `answered`: the broker has done so just now."""
    crash_points.reach("publish.before")
    sent = 0
    try:
        if not answered:
            client(BROKER).ping()  # fails at once, where Celery would try for seconds
        sent = _send(messages)
    except redis.RedisError as exc:
        log.warning("publish.failed", error=type(exc).__name__, unsent=len(messages))
    crash_points.reach("publish.after")
    return sent


def _send(messages: Sequence[Message]) -> int:
    sent = 0
    try:
        for message in messages:
            celery_app().send_task(
                f"tasks.{message.kind}",
                kwargs=_body(message),
                task_id=str(message.id)
                + (f".{message.published}" if message.published else ""),
                root_id=str(message.chain_id),
                parent_id=str(message.parent_id) if message.parent_id else None,
                queue=QUEUE,
                ignore_result=True,
                retry=False,
            )
            sent += 1
    except (OperationalError, redis.RedisError, OSError) as exc:
        log.warning("publish.failed", error=type(exc).__name__, unsent=len(messages) - sent)
    return sent


def _body(message: Message) -> dict[str, Any]:
    return {"job_id": str(message.id), "previous_session_id": message.previous_session_id}


def stream(project_id: str) -> str:
    """The Redis stream that holds the newest events of a project."""
    return f"events:{project_id}"


def announce(
    project_id: str, told: list[Written], messages: list[Message], *, user_id: str = ""
) -> None:
    """The commit is done: let the next jobs' workers and the watchers know.

    `told` is what it has written. Of `messages`, which are `user_id`'s, those are sent that are
    not left to the relay to choose the moment. A job that is sent for takes the slot that this
    one frees; where none is, the relay is rung.
    """
    try:
        _announce(project_id, told, messages, user_id)
    except Exception:  # whatever it was: what is committed stands, and the relay sends again
        log.exception("publish.failed", project=project_id)


def _announce(
    project_id: str, told: list[Written], messages: list[Message], user_id: str
) -> None:
    rung = [message for message in messages if message.rung]
    crash_points.reach("publish.before")
    # Only where Redis answers: where it does not, Celery tries for seconds.
    if copy(project_id, told, ring=not rung) and rung:
        _send(rung)
    crash_points.reach("publish.after")
    if not all(message.served for message in rung):
        _note_served(user_id)


def _note_served(user_id: str) -> None:
    """Between users it is by turns: what a chain goes on with by itself counts too."""
    try:
        with connection(timeout=WAIT) as conn:
            outbox.note_served(conn, user_id)
    except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
        log.info("user.not_noted", error=type(exc).__name__)


def copy(project_id: str, told: list[Written], *, ring: bool = False) -> bool:
    """Put events into the project's stream, and ring the relay's bell, in one trip; whether Redis
    answered."""
    name = stream(project_id)
    try:
        with client(PROGRESS).pipeline(transaction=False) as pipe:
            for event in told:
                fields: Any = {
                    "type": event["type"],
                    "job": event["job_id"] or "",
                    "body": json.dumps(event["body"]),
                }
                pipe.xadd(
                    name,
                    fields,
                    id=f"{event['seq']}-0",
                    maxlen=settings().events_kept,
                    approximate=True,
                )
            if told:
                pipe.expire(name, settings().events_ttl)
            if ring:
                pipe.publish(BELL, "")
            pipe.execute(raise_on_error=False)
    except redis.RedisError as exc:
        log.info("events.not_copied", error=type(exc).__name__)
        return False
    return True
