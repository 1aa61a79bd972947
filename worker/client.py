"""Asking for work. What a producer imports: it needs a Postgres, no broker.

    with psycopg.connect(url) as conn:
        job = enqueue(conn, Update(project="shop", user="ann", prompt="Make the header blue"))

The job exists exactly when the transaction commits. `baton_enqueue` in Postgres is the
one that checks and writes, so SQL producers get the same; a refusal is one sentence.
"""

import re
import time
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Literal, LiteralString
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row, tuple_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict

from config.settings import Asking, asking, read
from db import jobs, pool, projects, turns
from db.jobs import REFUSED, Job
from worker.errors import BadRequest
from worker.workspace import check_place, place_of

__all__ = [
    "Build",
    "ChatPlan",
    "Compaction",
    "Job",
    "Metadata",
    "Refused",
    "Update",
    "answer",
    "chain",
    "enqueue",
    "enqueue_async",
    "job",
    "latest_version",
    "wait",
]

read(Asking)  # a producer is refused when it starts, not with its first request
MAX_PRIORITY = 1_000_000
PROJECT_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@+=-]{0,199}")  # as baton_check_name
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
    branch_from: str | None = None  # a session: work beside the main line, from there
    template: str | None = None  # a new project's first session is a fork of this one's
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


def enqueue(conn: Connection[Any], ask: _Ask, *, job_id: UUID | None = None) -> Job:
    """Ask for a job, in the caller's transaction. Raises Refused; the transaction goes on.

    With `job_id` the job has that id, and asking again under it changes nothing.
    """
    _check_text(ask)
    with conn.cursor(row_factory=tuple_row) as cur:
        try:
            # Also opens the caller's transaction, so that the block below is a savepoint.
            _check_workspace(ask, cur.execute(PLACES, _places(ask)).fetchone())
            with conn.transaction():
                row = cur.execute(jobs.ENQUEUE, _params(ask, job_id)).fetchone()
        except psycopg.DatabaseError as exc:
            if sentence := _refusal(exc):
                raise Refused(sentence) from exc
            raise
    assert row
    found = jobs.get(conn, row[0])
    assert found
    return found


async def enqueue_async(
    conn: AsyncConnection[Any], ask: _Ask, *, job_id: UUID | None = None
) -> Job:
    """As `enqueue`, for an async connection."""
    _check_text(ask)
    async with conn.cursor(row_factory=tuple_row) as cur:
        try:
            await cur.execute(PLACES, _places(ask))
            _check_workspace(ask, await cur.fetchone())
            async with conn.transaction():
                row = await (await cur.execute(jobs.ENQUEUE, _params(ask, job_id))).fetchone()
        except psycopg.DatabaseError as exc:
            if sentence := _refusal(exc):
                raise Refused(sentence) from exc
            raise
    assert row
    async with conn.cursor(row_factory=class_row(Job)) as cur:
        found = await (await cur.execute(jobs.GET, row)).fetchone()
    assert found
    return found


def job(conn: Connection, job_id: UUID) -> Job | None:
    """The job as it stands; None if there is none of that id."""
    return jobs.get(conn, job_id)


def answer(conn: Connection, job_id: UUID, choice: Literal["retry", "start_new"]) -> bool:
    """Answer a job of `on_lost="ask"` whose session is lost: look for it once more, or begin
    a fresh one with the past retold. False when the job does not wait for an answer."""
    return turns.answer(conn, job_id, choice)


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
        "branch_from": ask.branch_from,
        "template": ask.template,
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
        "prompt_limit": asking().prompt_limit,
    }


# What is known of the project's workspace, and whose the one is that was asked for.
PLACES: LiteralString = """
    select (select workspace from projects where project_id = %(project)s),
           (select project_id from projects
             where (project_id = %(neighbour)s or workspace = %(default)s)
               and project_id <> %(project)s
               and not exists (select from projects where project_id = %(project)s) limit 1),
           (select workspace_tree is not null from projects where project_id = %(project)s),
           (select last_ai_session_id from projects where project_id = %(project)s)"""


def _places(ask: _Ask) -> dict[str, str | None]:
    """Parameters of PLACES: the project whose directory the asked-for one would be."""
    root = asking().workspaces
    given = Path(ask.workspace) if ask.workspace else None
    inside = given.relative_to(root).parts if given and given.is_relative_to(root) else ()
    return {
        "project": ask.project,
        "neighbour": inside[0] if inside else None,
        "default": str(root / ask.project) if given is None else None,
    }


def _check_text(ask: _Ask) -> None:
    """What Postgres cannot hold, or would take for something else."""
    for value in ask.model_dump().values():
        if isinstance(value, str) and ("\x00" in value or _torn(value)):
            raise Refused("The request has text that is not UTF-8 or holds a NUL: take it out.")
    if ask.run_at is not None and ask.run_at.tzinfo is None:
        raise Refused("run_at has no time zone: give it one, such as UTC.")
    if not -MAX_PRIORITY <= ask.priority <= MAX_PRIORITY:
        raise Refused(f"priority must be from -{MAX_PRIORITY} to {MAX_PRIORITY}.")


def _check_workspace(ask: _Ask, places: tuple[Any, ...] | None) -> None:
    """What Postgres cannot see: the workspace on this host, if it has workspaces."""
    known, other, kept, head = places or (None, None, None, None)
    if other:
        raise Refused("This workspace belongs to another project: choose another directory.")
    given = known or ask.workspace
    if given and not Path(given).is_absolute():
        raise Refused(f"The workspace {given} is not an absolute path.")
    root = asking().workspaces
    default = root / ask.project
    if not root.is_dir() and "workspaces" not in asking().model_fields_set:
        return  # this host has no workspaces: the worker will look
    if not PROJECT_ID.fullmatch(ask.project):
        return  # Postgres has the sentence
    path = Path(given or default)
    try:
        if known:
            path = place_of(ask.project, known, kept=bool(kept), head=head)
        check_place(path)
    except BadRequest as exc:
        raise Refused(str(exc)) from exc
    comes = path == default or (known and asking().workspace_remote)
    if not path.exists() and not comes:  # the default one is made, or made again
        raise Refused(f"The workspace {path} is missing: create the directory, or restore it.")


def _torn(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _refusal(exc: psycopg.DatabaseError) -> str | None:
    """The sentence, if that is what the error is."""
    if exc.sqlstate == REFUSED:
        return exc.diag.message_primary or "The request was refused."
    if isinstance(exc, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedFunction):
        return "This database does not have Baton's tables: run `baton migrate` first."
    return None
