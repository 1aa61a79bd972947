"""The event log as gateways read it: pages, heads, and a state with the position it was read at."""

from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row

from db.core.events import Row
from db.jobs.checks import choices
from db.operations.receipts import DIGEST

PAGE = 500  # events


async def heads(conn: AsyncConnection, projects: list[str]) -> dict[str, int]:
    """The number of the newest event of each of these projects."""
    found = await conn.execute(
        "select project_id, event_seq from projects where project_id = any(%s)", (projects,)
    )
    return {row[0]: row[1] for row in await found.fetchall()}


async def since(conn: AsyncConnection, project: str, seq: int, limit: int = PAGE) -> list[Row]:
    """The events after number `seq`, oldest first."""
    async with conn.cursor(row_factory=class_row(Row)) as cur:
        await cur.execute(
            "select seq, job_id, type, body, at from events"
            " where project_id = %s and seq > %s order by seq limit %s",
            (project, seq, limit),
        )
        return await cur.fetchall()


@dataclass(frozen=True, slots=True)
class Project:
    """What a connection must know of its project."""

    user_id: str
    epoch: str
    head: int  # of its events


async def project(conn: AsyncConnection, name: str) -> Project | None:
    """The project; None: there is none. `epoch` changes when it is another project under the id,
    another database, or one that a dump was restored to (the log is another file then): a cursor of
    before means nothing then."""
    async with conn.cursor(row_factory=class_row(Project)) as cur:
        await cur.execute(
            """
            select p.user_id, p.event_seq as head,
                   md5(concat_ws(' ', (select system_identifier from pg_control_system()),
                                 (select timeline_id from pg_control_checkpoint()),
                                 pg_relation_filenode('events'), p.project_id, p.created_at)) as epoch
              from projects p where p.project_id = %s
            """,
            (name,),
        )
        return await cur.fetchone()


async def was_deleted(conn: AsyncConnection, project: str, user: str) -> bool:
    """Whether a deletion of the project, or of its user, was begun: it is not told when."""
    for what, subject in (("project", project), ("user", user)):
        found = await conn.execute(
            "select 1 from deletions where what = %(what)s and digest =" + DIGEST + " limit 1",
            {"what": what, "subject": subject},
        )
        if await found.fetchone():
            return True
    return False


async def running_chains(conn: AsyncConnection, project_id: str) -> list[tuple[UUID, UUID]]:
    """The running jobs of a project with their chains."""
    found = await conn.execute(
        "select id, chain_id from jobs where project_id = %s and state = 'running'",
        (project_id,),
    )
    return [(row[0], row[1]) for row in await found.fetchall()]


MESSAGES: LiteralString = """
    select * from (
        select seq, body ->> 'role' as role, body ->> 'text' as text, body ->> 'session' as session,
               job_id as job, at
          from events where project_id = %s and type = 'chat.said' and seq <= %s
         order by seq desc limit %s) newest order by seq"""
OPEN: LiteralString = """
    select id as job, kind, chain_id as chain, state, error, error_class, attempts as attempt,
           case when error_class = 'check_undecided' then args end as undecided
      from jobs where project_id = %s and finished_at is null order by pos limit 100"""
LOST: LiteralString = """
    select e.job_id as job, e.body ->> 'code' as code, e.body ->> 'text' as text,
           e.body -> 'choices' as choices
      from jobs j join events e on e.project_id = j.project_id and e.job_id = j.id
                               and e.type = 'session.resume_failed'
     where j.project_id = %s and j.state = 'parked' and j.error_class = 'ask'
     order by e.seq desc limit 1"""

CHECKS: LiteralString = """
    select * from (
        select seq, type, job_id as job, at, body
          from events where project_id = %s and type in ('check.passed', 'check.failed')
           and seq between %s and %s
         order by seq desc limit %s) newest order by seq"""


async def snapshot(
    conn: AsyncConnection, name: str, messages: int
) -> tuple[int, dict[str, Any]]:
    """The project's state and the position that it was read at, both of one moment."""
    async with conn.transaction(), conn.cursor(row_factory=dict_row) as cur:
        await conn.execute("set transaction isolation level repeatable read, read only")
        await cur.execute(
            "select event_seq, last_ai_session_id from projects where project_id = %s", (name,)
        )
        row = await cur.fetchone()
        at = row["event_seq"] if row else 0
        said = await (await cur.execute(MESSAGES, (name, at, messages))).fetchall()
        jobs = await (await cur.execute(OPEN, (name,))).fetchall()
        lost = await (await cur.execute(LOST, (name,))).fetchone()
        told = (name, said[0]["seq"] if said else at, at, messages)
        checks = await (await cur.execute(CHECKS, told)).fetchall()
        await cur.execute(
            "select version_id, check_status from project_versions where project_id = %s"
            " order by created_at desc, id desc limit 1",
            (name,),
        )
        version = await cur.fetchone()
    for job in jobs:
        args = job.pop("undecided")
        job["choices"] = choices(args) if args is not None else None
    return at, {
        "messages": said,
        "jobs": jobs,
        "head": row["last_ai_session_id"] if row else None,
        "version": version["version_id"] if version else None,
        "check_status": version["check_status"] if version else None,
        "checks": checks,
        "lost": lost,
    }
