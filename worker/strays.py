"""Plain messages that a worker took and died with: back into their queue.

Celery does that after its visibility timeout, which is hours here, since jobs are long. But
the row of a plain message is committed within seconds after a worker took it: one that has
none after LATE was lost on the way. Put back in vain it does no harm: the row's id is the
task's.
"""

import json
import time
from typing import Any
from uuid import UUID

import structlog

from db import jobs
from db.pool import connection
from worker.checkpoints import BROKER, client
from worker.publish import PLAIN, celery_app

log = structlog.get_logger()

LATE = 60.0  # seconds; Postgres is waited for no longer than 10
TAKEN, WHEN = "unacked", "unacked_index"  # as kombu calls them


def put_back() -> int:
    """Put the lost ones back, and say how many."""
    lost = _lost()
    if lost:
        with celery_app().connection_for_write() as broker:
            channel: Any = broker.default_channel
            for tag in lost:
                channel.qos.restore_by_tag(tag)
                log.warning("message.put_back", error="worker died")
    return len(lost)


def _lost() -> list[str]:
    broker: Any = client(BROKER)
    tags = broker.zrangebyscore(WHEN, 0, time.time() - LATE)
    found = dict[str, UUID]()
    for tag, text in zip(tags, broker.hmget(TAKEN, tags) if tags else (), strict=True):
        if job_id := _asked(text):
            found[tag] = job_id
    if not found:
        return []
    with connection() as conn:
        known = jobs.known(conn, list(found.values()))
    return [tag for tag, job_id in found.items() if job_id not in known]


def _asked(text: str | None) -> UUID | None:
    """The id of the row that this message becomes; None if it is none of a plain producer's."""
    if text is None:
        return None
    message, _exchange, queue = json.loads(text)
    if queue != PLAIN:
        return None
    return jobs.id_of_task(str(message["properties"].get("correlation_id") or ""))
