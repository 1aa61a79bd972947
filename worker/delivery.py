"""From a Celery message to a job, and from a job's end to what Flower shows.

Our own messages name a job. A plain producer's message is the request itself: its row
is committed first, under the task's id, so that a redelivery adds nothing; then the
message may be acknowledged. The row is always written before the task ends.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import psycopg_pool
import structlog
from celery.app.task import Task
from celery.exceptions import Ignore, Reject, Retry
from pydantic import ValidationError

from config.settings import settings
from db import jobs
from db.pool import AWAY, NoDatabase, transaction
from worker import points
from worker.chain import Attempt
from worker.client import Build as BuildAsk
from worker.client import ChatPlan, Compaction, Metadata, Refused, Update, enqueue
from worker.retry import on_blip
from worker.run import Ran, run

log = structlog.get_logger()

ASKS: dict[str, Any] = {
    "build": BuildAsk,
    "update": Update,
    "metadata": Metadata,
    "compaction": Compaction,
    "chat_plan": ChatPlan,
}
Do = Callable[[Attempt], None]
WORK: dict[str, Do] = {}  # by the kind of the job; tasks/ has it
PLACES = ("project_id", "user_id", "prompt", "version_id", "previous_session_id", "key")
FIELDS = {"project_id": "project", "user_id": "user", "version_id": "version"}


class JobFailed(Exception):
    """What Flower shows of a job that failed: its class and sentence."""


class RefusedMessage(Exception):
    """What Flower shows of a plain message that was refused: why, in one sentence.

    `code` and `field` are those of docs/jobs.md.
    """

    def __init__(
        self, sentence: str, *, code: str = "bad_input", field: str | None = None
    ) -> None:
        super().__init__(sentence)
        self.code = code
        self.field = field


SHOWN = (JobFailed, RefusedMessage)  # ends as expected: a line in the log, no traceback


def does(kind: str) -> Callable[[Do], Do]:
    """Marks what is done for a job of this kind."""

    def note(do: Do) -> Do:
        WORK[kind] = do
        return do

    return note


def deliver(
    task: Task[Any, Any], kind: str, given: tuple[Any, ...], asked: dict[str, Any]
) -> None:
    """Run what the message is about, and end the task as Flower should show it.

    `asked` is the message's fields by name, `given` those that came by place. What is done
    for a job is the row's to say, whatever task woke it; `kind` is what a plain message asks for.
    """
    job_id = asked.get("job_id")
    try:
        job = (
            UUID(str(job_id))
            if job_id
            else accept(kind, str(task.request.id), named(given, asked))
        )
    except ValueError as exc:
        raise RefusedMessage("The job id of the message is not a UUID.") from exc
    try:
        ran = run(job, lambda at: WORK[at.job.kind](at), chosen=bool(job_id))
    except (psycopg.Error, psycopg_pool.PoolTimeout, NoDatabase) as exc:
        log.warning("job.not_begun", error=type(exc).__name__)
        if job_id:
            raise Ignore from exc  # the row waits; the relay publishes it again
        raise Reject(f"Postgres: {type(exc).__name__}", requeue=True) from exc
    points.reach("ack.before")
    show(task, ran)


def named(given: tuple[Any, ...], asked: dict[str, Any]) -> dict[str, Any]:
    """The fields of a plain message by name. Raises RefusedMessage for one too many."""
    if len(given) > len(PLACES):
        raise RefusedMessage(f"The message has {len(given)} arguments: use names instead.")
    return {**dict(zip(PLACES, given, strict=False)), **asked}


def accept(kind: str, task_id: str, asked: dict[str, Any]) -> UUID:
    """Commit the row of a plain producer's request; its id is the task's.

    Raises RefusedMessage, or Reject with the message put back when Postgres is away.
    """
    if not settings().plain_celery:
        raise RefusedMessage("Plain messages are refused here (BATON_PLAIN_CELERY=off).")
    given = {
        FIELDS.get(name, name): value for name, value in asked.items() if value is not None
    }
    try:
        ask = ASKS[kind](**given)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RefusedMessage(
            f"The message's {where}: {first['msg'].lower()}.", field=where
        ) from exc
    try:
        accepted = _commit(ask, task_id)
    except Refused as exc:
        raise RefusedMessage(str(exc), code=exc.code, field=exc.field) from exc
    except AWAY as exc:
        log.warning("message.put_back", error=type(exc).__name__)
        raise Reject("Postgres is away", requeue=True) from exc
    points.reach("message.accepted")
    return accepted


@on_blip
def _commit(ask: Any, task_id: str) -> UUID:
    with transaction() as conn:
        return enqueue(conn, ask, job_id=jobs.id_of_task(task_id)).id


def show(task: Task[Any, Any], ran: Ran) -> None:
    """Raise what makes Celery's state of the task that of the job."""
    text = f"{ran.error_class}: {ran.error}"
    match ran.state:
        case "done":
            return
        case "waits":
            raise Retry(text)
        case "cancelled":
            task.send_event("task-revoked", terminated=True, signum=None, expired=False)
            raise Ignore
        case "ignored" if "." in str(task.request.id):
            raise Reject("Another message woke the job.", requeue=False)
        case "ignored":
            raise Ignore  # the job's own task id: its state is still to come
        case _:
            raise JobFailed(text)
