"""Asking for work. What a producer imports: it needs a Postgres, no broker.

    with psycopg.connect(url) as conn:
        job = enqueue(conn, Update(project="shop", user="ann", prompt="Make the header blue"))

The job exists exactly when the transaction commits. `baton_enqueue` in Postgres is the
one that checks and writes, so SQL producers get the same; a refusal is one sentence, and a
class of exception for each reason (worker/failures/refused.py).
"""

import time
from contextlib import suppress
from typing import Any, Literal, LiteralString
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, tuple_row

from config.settings import Asking, read
from db.core import pool
from db.jobs import jobs, messages, producers
from db.jobs.jobs import Job
from db.live import keys
from db.projects import projects
from db.projects.projects import Place
from db.sessions import turns
from worker.failures.refused import (
    BadBranch,
    BadCallback,
    BadInput,
    BadTemplate,
    BadVersion,
    BadWorkspace,
    BeingDeleted,
    Busy,
    KeyConflict,
    NotMigrated,
    ProjectUnavailable,
    PromptTooLong,
    Refused,
    TooManyRequests,
    UnknownProject,
    WrongIsolation,
    WrongUser,
    refusing,
)
from worker.requests import (
    Build,
    ChatPlan,
    Compaction,
    Metadata,
    Repair,
    Request,
    Update,
    params,
    readable,
)
from worker.workspace import places

__all__ = [
    "BadBranch",
    "BadCallback",
    "BadInput",
    "BadTemplate",
    "BadVersion",
    "BadWorkspace",
    "BeingDeleted",
    "Build",
    "Busy",
    "ChatPlan",
    "Compaction",
    "Job",
    "KeyConflict",
    "Metadata",
    "NotMigrated",
    "ProjectUnavailable",
    "PromptTooLong",
    "Refused",
    "Repair",
    "TooManyRequests",
    "UnknownProject",
    "Update",
    "WrongIsolation",
    "WrongUser",
    "answer",
    "cancel",
    "chain",
    "enqueue",
    "enqueue_async",
    "job",
    "latest_version",
    "refusal",
    "retry",
    "ring",
    "speak_for",
    "wait",
]

read(Asking)  # a producer is refused when it starts, not with its first request
LOOK_EVERY = 0.2  # seconds between two looks of wait()


def speak_for(conn: Connection[Any], user: str) -> None:
    """What this connection asks and reads from here on is of that user, where it is one of
    baton_producer or baton_reader (docs/security.md, Roles). In a transaction: until its end, which
    is the only way through a pooler."""
    idle = conn.info.transaction_status == TransactionStatus.IDLE
    of_the_session = conn.autocommit and idle
    conn.execute("select set_config('baton.user', %s, %s)", (user, not of_the_session))


def enqueue(
    conn: Connection[Any], ask: Request, *, job_id: UUID | None = None, operator: bool = False
) -> Job:
    """Ask for a job, in the caller's transaction. Raises Refused; the transaction goes on.

    With `job_id` the job has that id, and asking again under it changes nothing. An `operator`
    may ask as a user whose id is reserved, such as that of templates.
    """
    ask = readable(ask)
    with conn.cursor(row_factory=class_row(Place)) as looking, refusing():
        # Also opens the caller's transaction, so that the block below is a savepoint.
        place = looking.execute(projects.PLACE_OF, (ask.project, ask.user)).fetchone()
        places.check_asked(ask.project, ask.workspace, place)
        with conn.transaction(), conn.cursor(row_factory=tuple_row) as cur:
            row = cur.execute(_statement(operator), params(ask, job_id)).fetchone()
    assert row
    found = jobs.get(conn, row[0])
    assert found
    return found


async def enqueue_async(
    conn: AsyncConnection[Any],
    ask: Request,
    *,
    job_id: UUID | None = None,
    operator: bool = False,
) -> Job:
    """As `enqueue`, for an async connection."""
    ask = readable(ask)
    async with conn.cursor(row_factory=class_row(Place)) as looking:
        with refusing():
            await looking.execute(projects.PLACE_OF, (ask.project, ask.user))
            places.check_asked(ask.project, ask.workspace, await looking.fetchone())
            async with conn.transaction(), conn.cursor(row_factory=tuple_row) as cur:
                await cur.execute(_statement(operator), params(ask, job_id))
                row = await cur.fetchone()
    assert row
    async with conn.cursor(row_factory=class_row(Job)) as cur:
        found = await (await cur.execute(jobs.GET, row)).fetchone()
    assert found
    return found


async def enqueue_for_key(
    conn: AsyncConnection[Any], ask: Request, key: str
) -> tuple[UUID, str] | None:
    """As `enqueue`, of whoever brings a key over HTTP: the job's id and state. None, with nothing done,
    where the key may not ask. `ask` is `readable`. In a transaction of its own, and in one statement
    where the host has no workspaces. Raises Refused also where the project is another account's."""
    given = params(ask, None) | {"holder": keys.digest(key)}
    with refusing():
        if places.are_here():
            found = await (await conn.execute(keys.PLACE, given)).fetchone()
            if found is None:
                return None
            known, *place = found
            places.check_asked(ask.project, ask.workspace, Place(*place) if known else None)
        row = await (await conn.execute(keys.ENQUEUE, given)).fetchone()
    if row is None:
        return None
    made, state, noted = row
    if not noted:  # once a minute; the job is there already, so it says nothing if that fails
        with suppress(psycopg.Error):
            await keys.holder(conn, key)
    return made, state


def ring() -> None:
    """Call it after the commit, where REDIS_URL is set: the relay looks at once, and not within
    BATON_RELAY_POLL. Best effort; nothing depends on it, and it raises nothing."""
    from config.settings import settings
    from worker.broker import bell  # most producers have no Redis

    if settings().redis_url:
        bell.ring()


def job(conn: Connection, job_id: UUID, *, user: str | None = None) -> Job | None:
    """The job as it stands; None if there is none of that id, or it is not that user's."""
    found = jobs.get(conn, job_id)
    return found if found and user in (None, found.user_id) else None


def cancel(conn: Connection, job_id: UUID, *, user: str | None = None) -> Job | None:
    """Cancel the job and what follows in its chain; None as for `job`. As baton_producer it is only
    asked for: a relay does it within seconds."""
    found = job(conn, job_id, user=user)
    if found is None or not producers.is_one(conn):
        return found and jobs.cancel(conn, job_id)
    with refusing():
        producers.cancel(conn, job_id)
    return found


def retry(
    conn: Connection,
    job_id: UUID,
    *,
    user: str | None = None,
    fresh: bool = False,
    key: str | None = None,
) -> Job | None:
    """Ask for a finished job once more; None as for `job`, or if it has not ended.

    A build that is done makes a new version. Under a `key` (1 to 200 characters, one for a project) it
    is one job, however often it is asked for. Raises Refused, as `enqueue` does.
    """
    with refusing():
        if not producers.is_one(conn):
            return jobs.again(conn, job_id, fresh=fresh, user=user, key=key)
        mine = job(conn, job_id, user=user)
        new = producers.again(conn, job_id, fresh=fresh, key=key) if mine else None
    return jobs.get(conn, new) if new else None


def answer(
    conn: Connection,
    job_id: UUID,
    choice: Literal["retry", "start_new", "keep", "rewind", "repair"],
    *,
    user: str | None = None,
) -> bool:
    """Answer a job of `on_lost="ask"` whose session is lost: look for it once more, or begin
    a fresh one with the past retold; or one of `on_check_failed="ask"` whose version fails its check
    (docs/checks.md). False when no job of the user's waits for an answer."""
    return job(conn, job_id, user=user) is not None and turns.answer(conn, job_id, choice)


def refusal(conn: Connection, task_id: str) -> str | None:
    """Why no job was made of a plain Celery message, by its task's id; None if it was not
    refused, or longer ago than a week."""
    found = messages.refused(conn, task_id)
    return found.error if found else None


def chain(conn: Connection, chain_id: UUID) -> list[Job]:
    """The jobs of a request in order, the one that was asked for first."""
    return jobs.chain(conn, chain_id)


def wait(job_id: UUID, timeout: float | None = None, *, user: str | None = None) -> Job:
    """Wait until the job's whole chain has ended, and return the job. `user`: see `speak_for`.

    Raises LookupError for an unknown job and TimeoutError after `timeout` seconds.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with pool.connect() as conn:
        while True:
            found, over = _look(conn, job_id, user)
            if found is None:
                raise LookupError(f"There is no job {job_id}.")
            if over:
                return found
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"The chain of job {job_id} has not ended in {timeout} s.")
            time.sleep(LOOK_EVERY)


def _look(conn: Connection, job_id: UUID, user: str | None) -> tuple[Job | None, bool]:
    """The job, and whether its chain has ended."""
    with conn.transaction():  # for whom it speaks is said for no longer: it may be a pooler's
        if user:
            speak_for(conn, user)
        found = jobs.get(conn, job_id)
        if found and jobs.ended(conn, found.chain_id):
            return jobs.get(conn, job_id) or found, True
        return found, False


def latest_version(conn: Connection, project_id: str) -> projects.Version | None:
    """The project's newest version with its session."""
    return projects.latest_version(conn, project_id)


def _statement(operator: bool) -> LiteralString:
    return jobs.ENQUEUE_AS_OPERATOR if operator else jobs.ENQUEUE
