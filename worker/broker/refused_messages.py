"""A message of which no job is made: written down with its id, a code and a sentence, so that
its producer and an operator find it; and told in the log, without a word of what it held."""

from typing import Any
from uuid import uuid4

import structlog
from psycopg import Connection

from db.core.pool import connection
from db.jobs import messages
from worker.failures.retry import on_blip
from worker.process.notes import notes
from worker.text.storable import plain

log = structlog.get_logger()

SHOWN = 80  # characters of a task's name in the log


class RefusedMessage(Exception):
    """What Flower shows of a message that was refused: why, in one sentence.

    `code` and `field` are those of docs/jobs.md.
    """

    def __init__(self, sentence: str, code: str = "bad_input", *, field: str | None = None):
        super().__init__(sentence)
        self.code = code
        self.field = field


def keep(task_id: str, task: str, refused: RefusedMessage) -> None:
    """Write it down now, before the message is acknowledged. Raises psycopg.Error
    or NoDatabase."""
    _tell(task_id, task, refused.code)
    _kept(task_id, task, refused.code, str(refused))


@on_blip
def _kept(task_id: str, task: str, code: str, sentence: str) -> None:
    with connection() as conn:
        messages.refuse(conn, plain(task_id), plain(task), code, plain(sentence))


def keep_later(task_id: Any, task: Any, code: str, sentence: str) -> str:
    """Have it written down, from Celery's main loop, which waits for nothing. Returns the id
    under which it is found: the message's, or one of its own."""
    found = plain(str(task_id or f"without-id-{uuid4()}"))
    name = plain(str(task or "?"))
    _tell(found, name, code)

    def write(conn: Connection) -> None:
        messages.refuse(conn, found, name, code, sentence)

    if not notes().write(write):
        log.error("message.refusal_lost", task_id=found)
    return found


def _tell(task_id: str, task: str, code: str) -> None:
    log.warning("message.refused", task_id=task_id, task=task[:SHOWN], code=code)
