"""From a Celery message to a job, and from a job's end to what Flower shows.

Our own messages name a job. A plain producer's message is the request itself: its row
is committed first, under the task's id, so that a redelivery adds nothing; then the
message may be acknowledged. The row is always written before the task ends.
"""

from collections.abc import Callable
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import psycopg_pool
import structlog
from celery.app.task import Task
from celery.exceptions import Ignore, Reject, Retry
from psycopg.errors import LockNotAvailable
from pydantic import ValidationError

from config.settings import settings
from db.core.outages import may_pass
from db.core.pool import NoDatabase, transaction
from db.jobs import jobs, messages
from worker.broker.app import app
from worker.broker.refused_messages import RefusedMessage, keep
from worker.client import Build as BuildAsk
from worker.client import ChatPlan, Compaction, Metadata, Refused, Repair, Update, enqueue
from worker.failures.retry import on_blip
from worker.job.attempt import Attempt
from worker.job.run import Ran, run
from worker.process import crash_points

log = structlog.get_logger()

ASKS: dict[str, Any] = {
    "build": BuildAsk,
    "update": Update,
    "repair": Repair,
    "metadata": Metadata,
    "compaction": Compaction,
    "chat_plan": ChatPlan,
}
Do = Callable[[Attempt], None]
WORK: dict[str, Do] = {}  # by the kind of the job; tasks/ has it
PLACES = ("project_id", "user_id", "prompt", "version_id", "previous_session_id", "key")
FIELDS = {"project_id": "project", "user_id": "user", "version_id": "version"}
SAID = {ours: theirs for theirs, ours in FIELDS.items()}  # some messages have our names


# A producer's open transaction may hold what a request needs: that stops no slot for long.
IMPATIENT: LiteralString = "select set_config('lock_timeout', '1s', true)"


class JobFailed(Exception):
    """What Flower shows of a job that failed: its class and sentence."""


IDLE = "Another message woke the job: nothing was left to do."
SHOWN = (JobFailed, RefusedMessage)  # ends as expected: a line in the log, no traceback


def does(kind: str) -> Callable[[Do], Do]:
    """Marks what is done for a job of this kind, and makes the task `tasks.<kind>`: its message
    wakes the job `job_id`, or is, from a plain producer, the request itself."""

    def note(do: Do) -> Do:
        WORK[kind] = do

        @app.task(name=f"tasks.{kind}", bind=True, throws=SHOWN)
        def wake(self: Task[Any, Any], *given: Any, **asked: Any) -> str | None:
            return deliver(self, kind, given, asked)

        del wake  # Celery has it by its name
        return do

    return note


def deliver(
    task: Task[Any, Any], kind: str, given: tuple[Any, ...], asked: dict[str, Any]
) -> str | None:
    """Run what the message is about, and end the task as Flower should show it.

    `asked` is the message's fields by name, `given` those that came by place. What is done
    for a job is the row's to say, whatever task woke it; `kind` is what a plain message asks for.
    Returns what Flower shows of a message that changed nothing.
    """
    try:
        job = _job_of(task, kind, given, asked)
    except RefusedMessage as exc:
        _keep(task, exc)
        raise
    try:
        ran = run(job, lambda at: WORK[at.job.kind](at), chosen=bool(asked.get("job_id")))
    except (psycopg.Error, psycopg_pool.PoolTimeout, NoDatabase) as exc:
        log.warning("job.not_begun", job=str(job), error=type(exc).__name__)
        raise Ignore from exc  # the row waits; the relay publishes it again
    crash_points.reach("ack.before")
    return show(task, ran)


def _job_of(
    task: Task[Any, Any], kind: str, given: tuple[Any, ...], asked: dict[str, Any]
) -> UUID:
    """The job that the message names, or that it asks for. Raises RefusedMessage, or Reject."""
    job_id = asked.get("job_id")
    if not job_id:
        return accept(kind, str(task.request.id), named(given, asked))
    try:
        return UUID(str(job_id))
    except ValueError:
        raise RefusedMessage("The job id of the message is not a UUID.", "bad_input") from None


def _keep(task: Task[Any, Any], refused: RefusedMessage) -> None:
    """Raises Reject with the message put back when Postgres is away."""
    try:
        keep(str(task.request.id), task.name, refused)
    except (psycopg.Error, NoDatabase) as exc:
        _put_back_if_it_may_pass(exc)
        # It is not migrated, most likely.
        log.warning("message.refusal_lost", error=type(exc).__name__)


def _put_back_if_it_may_pass(exc: Exception) -> None:
    """Raises Reject, with the message put back. Nobody counts how often: to lose a request is worse."""
    if isinstance(exc, NoDatabase) or may_pass(exc):
        log.warning("message.put_back", error=type(exc).__name__)
        raise Reject("Postgres is away, or busy", requeue=True) from exc


def named(given: tuple[Any, ...], asked: dict[str, Any]) -> dict[str, Any]:
    """The fields of a plain message by name. Raises RefusedMessage for one too many, or given twice."""
    if len(given) > len(PLACES):
        raise RefusedMessage(
            f"The message has {len(given)} arguments: use names instead.", "bad_input"
        )
    fields = [
        *zip(PLACES, given, strict=False),
        *((SAID.get(name, name), value) for name, value in asked.items()),
    ]
    names = [name for name, _ in fields]
    if twice := [name for name in names if names.count(name) > 1]:
        raise RefusedMessage(f"The message's {twice[0][:60]} is given twice.", field=twice[0])
    return dict(fields)


def accept(kind: str, task_id: str, asked: dict[str, Any]) -> UUID:
    """Commit the row of a plain producer's request; its id is the task's.

    Raises RefusedMessage; or Reject with the message put back when Postgres is away, or when
    somebody's transaction holds what the request needs.
    """
    if not settings().plain_celery:
        raise RefusedMessage(
            "Plain messages are refused here (BATON_PLAIN_CELERY=off).", "plain_off"
        )
    given = {
        FIELDS.get(name, name): value for name, value in asked.items() if value is not None
    }
    if kind == "build" and "error" in given:
        kind = "repair"
    try:
        ask = ASKS[kind](**given)
    except ValidationError as exc:  # from None: what was given would stand in the traceback
        first = exc.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:60]
        said = str(first["msg"]).removeprefix("Value error, ").lower()
        raise RefusedMessage(
            f"The message's {SAID.get(where, where)}: {said}.", field=where
        ) from None
    try:
        accepted = _commit(ask, task_id)
    except Refused as exc:
        raise RefusedMessage(str(exc), exc.code, field=exc.field) from None
    except (psycopg.Error, NoDatabase) as exc:
        _put_back_if_it_may_pass(exc)
        # It would be refused again; its text may hold what was given.
        told = f"SQLSTATE {getattr(exc, 'sqlstate', None)}"
        raise RefusedMessage(
            f"Postgres refuses the request ({told}): look at its fields."
        ) from None
    crash_points.reach("message.accepted")
    return accepted


@on_blip
def _commit(ask: Any, task_id: str) -> UUID:
    try:
        with transaction() as conn:
            conn.execute(IMPATIENT)
            job_id = enqueue(conn, ask, job_id=jobs.id_of_task(task_id)).id
            messages.obey(conn, job_id)
    except LockNotAvailable as exc:  # no blip: trying again here would keep the slot
        log.warning("message.put_back", error=type(exc).__name__)
        raise Reject("A transaction holds what the request needs", requeue=True) from exc
    return job_id


def show(task: Task[Any, Any], ran: Ran) -> str | None:
    """Raise what makes Celery's state of the task that of the job.

    A message that began nothing is no failure of anybody, and says so: unless it has the job's
    own id, whose state is the job's.
    """
    text = f"{ran.error_class}: {ran.error}"
    another = "." in str(task.request.id)
    if another and not ran.began and ran.state != "waits":
        return IDLE
    match ran.state:
        case "done":
            return None
        case "waits":
            raise Retry(text)
        case "cancelled":
            task.send_event("task-revoked", terminated=True, signum=None, expired=False)
            raise Ignore
        case "ignored" if another:
            raise Retry(text)  # it has lost the job, which goes on
        case "ignored":
            raise Ignore  # its state is still to come
        case _:
            raise JobFailed(text)
