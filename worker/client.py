"""Asking for work. What a producer imports: it needs Postgres, not Celery or Redis.

    with psycopg.connect(url) as conn:
        job = enqueue(conn, Update(project="shop", user="ann", prompt="Make the header blue"))

The job exists exactly when the transaction commits. `baton_enqueue` in Postgres is the
one that checks and writes, so SQL producers get the same; a refusal is one sentence.
"""

import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict

from config.settings import settings
from db import jobs, pool, projects
from db.jobs import Job
from worker.errors import BadRequest
from worker.workspace import check_place

__all__ = [
    "Build",
    "ChatPlan",
    "Compaction",
    "Job",
    "Metadata",
    "Refused",
    "Update",
    "chain",
    "enqueue",
    "enqueue_async",
    "job",
    "wait",
]

REFUSED = "BA001"  # SQLSTATE of baton_enqueue's refusals
LOOK_EVERY = 0.2  # seconds between two looks of wait()


class Refused(BadRequest):
    """The request cannot be taken; the text says why and what to do. Nothing was written."""


class _Ask(BaseModel):
    """What every request may say. `key` makes it safe to send again: same key and body,
    same job. `busy`: what to do when the project has work already. `budget` is in USD."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)
    kind: ClassVar[str]

    project: str
    user: str
    prompt: str | None = None
    version: str | None = None
    key: str | None = None
    busy: Literal["enqueue", "reject", "replace", "interrupt"] = "enqueue"
    priority: int = 0
    run_at: datetime | None = None
    model: str | None = None
    max_turns: int | None = None
    budget: Decimal | None = None
    previous_session_id: str | None = None
    workspace: str | None = None
    on_lost: Literal["fresh", "ask"] | None = None


class Build(_Ask):
    """Build the project; the first one creates it."""

    kind = "build"


class Update(_Ask):
    """Change a project that exists."""

    kind = "update"


class ChatPlan(_Ask):
    """Answer a question from the project's latest session; changes no file."""

    kind = "chat_plan"


class Metadata(_Ask):
    """Recommendations and documentation for the latest version."""

    kind = "metadata"


class Compaction(_Ask):
    """Compact the project's session, whatever its size."""

    kind = "compaction"


def enqueue(conn: Connection, ask: _Ask, *, job_id: UUID | None = None) -> Job:
    """Ask for a job, in the caller's transaction. Raises Refused.

    With `job_id` the job has that id, and asking again under it changes nothing.
    """
    found = conn.execute(
        "select workspace from projects where project_id = %s", (ask.project,)
    ).fetchone()
    _check(ask, found[0] if found else None)
    try:
        with conn.transaction():
            row = conn.execute(jobs.ENQUEUE, _params(ask, job_id)).fetchone()
    except psycopg.DatabaseError as exc:
        raise _refused(exc) from exc
    assert row
    found_job = jobs.get(conn, row[0])
    assert found_job
    return found_job


async def enqueue_async(conn: AsyncConnection, ask: _Ask, *, job_id: UUID | None = None) -> Job:
    """As `enqueue`, for an async connection."""
    found = await (
        await conn.execute(
            "select workspace from projects where project_id = %s", (ask.project,)
        )
    ).fetchone()
    _check(ask, found[0] if found else None)
    try:
        async with conn.transaction():
            row = await (await conn.execute(jobs.ENQUEUE, _params(ask, job_id))).fetchone()
    except psycopg.DatabaseError as exc:
        raise _refused(exc) from exc
    assert row
    async with conn.cursor(row_factory=class_row(Job)) as cur:
        found_job = await (await cur.execute(jobs.GET, row)).fetchone()
    assert found_job
    return found_job


def job(conn: Connection, job_id: UUID) -> Job | None:
    """The job as it stands; None if there is none of that id."""
    return jobs.get(conn, job_id)


def chain(conn: Connection, chain_id: UUID) -> list[Job]:
    """The jobs of a request in order, the one that was asked for first."""
    return jobs.chain(conn, chain_id)


def wait(job_id: UUID, timeout: float | None = None) -> Job:
    """Wait until the job's whole chain has ended, and return the job.

    Raises LookupError for an unknown job and TimeoutError after `timeout` seconds.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with pool.connect() as conn:
        while True:
            found = jobs.get(conn, job_id)
            if found is None:
                raise LookupError(f"There is no job {job_id}.")
            if jobs.ended(conn, found.chain_id):
                return jobs.get(conn, job_id) or found
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"The chain of job {job_id} has not ended in {timeout} s.")
            time.sleep(LOOK_EVERY)


def latest_version(conn: Connection, project_id: str) -> projects.Version | None:
    """The project's newest version with its session (R101, R107)."""
    return projects.latest_version(conn, project_id)


def _params(ask: _Ask, job_id: UUID | None) -> dict[str, Any]:
    options = {
        "model": ask.model,
        "max_turns": ask.max_turns,
        "budget": float(ask.budget) if ask.budget is not None else None,
        "workspace": ask.workspace,
        "on_lost": ask.on_lost,
    }
    return {
        **ask.model_dump(
            include={
                "project",
                "user",
                "prompt",
                "version",
                "key",
                "busy",
                "priority",
                "run_at",
                "previous_session_id",
            }
        ),
        "kind": ask.kind,
        "options": Jsonb({k: v for k, v in options.items() if v is not None}),
        "id": job_id,
        "prompt_limit": settings().prompt_limit,
    }


def _check(ask: _Ask, known_workspace: str | None) -> None:
    """What Postgres cannot see: text it cannot hold, and the workspace on this host."""
    for value in (ask.project, ask.user, ask.prompt, ask.version, ask.key, ask.model):
        if value is not None and ("\x00" in value or _torn(value)):
            raise Refused("The request has text that is not UTF-8 or holds a NUL: take it out.")
    if known_workspace and ask.workspace and ask.workspace != known_workspace:
        raise Refused("The project has another workspace already: leave the workspace out.")
    if not settings().workspaces.is_dir():
        return  # this host has no workspaces: the worker will look
    given = known_workspace or ask.workspace
    try:
        if given:
            check_place(Path(given))
    except BadRequest as exc:
        raise Refused(str(exc)) from exc
    default = settings().workspaces / ask.project
    if given and not Path(given).exists():
        raise Refused(f"The workspace {given} is missing: create the directory, or restore it.")
    if Path(given or default).exists() and not Path(given or default).is_dir():
        raise Refused(
            f"The workspace {given or default} is not a directory: move the file away."
        )


def _torn(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _refused(exc: psycopg.DatabaseError) -> Exception:
    if exc.sqlstate == REFUSED:
        return Refused(exc.diag.message_primary or "The request was refused.")
    return exc
