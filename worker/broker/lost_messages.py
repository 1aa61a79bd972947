"""Plain messages that a worker took and died with: back into their queue.

Celery does that after its visibility timeout, which is hours here, since jobs are long. But
the row of a plain message is committed within seconds after a worker took it: one that is
still without a row after LATE was lost on the way. Put back in vain it does no harm: the
row's id is the task's.
"""

import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from db.core.pool import connection
from db.jobs import jobs
from worker.broker.publish import celery_app
from worker.broker.queues import PLAIN
from worker.live.checkpoints import BROKER, client

log = structlog.get_logger()

LATE = 60.0  # seconds; Postgres is waited for no longer than 10
TAKEN = "unacked"  # as kombu calls what workers have taken


@dataclass
class Strays:
    """Since when (monotonic seconds) each plain message is seen to be with a worker."""

    late: float = LATE
    seen: dict[str, float] = field(default_factory=dict[str, float])

    def put_back(self) -> int:
        """Put those back that are late and without a row, and say how many."""
        now, taken = time.monotonic(), _taken()
        self.seen = {tag: self.seen.get(tag, now) for tag in taken}
        late = {tag: taken[tag] for tag, since in self.seen.items() if now - since > self.late}
        lost = _without_row(late) if late else []
        if lost:
            with celery_app().connection_for_write() as broker:
                channel: Any = broker.default_channel
                for tag in lost:
                    channel.qos.restore_by_tag(tag)
                    log.warning("message.put_back", error="worker died")
        return len(lost)


def _taken() -> dict[str, UUID]:
    """Of each plain message that a worker has: the id of the row that it becomes."""
    broker: Any = client(BROKER)
    asked = {tag: _asked(text) for tag, text in broker.hgetall(TAKEN).items()}
    return {tag: job_id for tag, job_id in asked.items() if job_id}


def _asked(text: str) -> UUID | None:
    """None also for what is no message: Celery has its own ways with that."""
    try:
        return _row_of(*json.loads(text))
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def _row_of(message: Any, _exchange: str, queue: str) -> UUID | None:
    if queue != PLAIN or message["headers"].get("eta"):  # that one is to wait at its worker
        return None
    return jobs.id_of_task(str(message["properties"].get("correlation_id") or ""))


def _without_row(messages: dict[str, UUID]) -> list[str]:
    with connection() as conn:
        known = jobs.known(conn, list(messages.values()))
    return [tag for tag, job_id in messages.items() if job_id not in known]
