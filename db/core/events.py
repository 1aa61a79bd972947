"""Events: what happened to a project, numbered without a gap.

The number comes from the project's row in the transaction of the change that the
event tells, so numbers are in commit order. Statements that change a job write
their events themselves, with the fragments below; `append` is for the rest.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString, TypedDict
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb


@dataclass(frozen=True, slots=True)
class Event:
    """One event that is to be written. Types and bodies: docs/events.md."""

    type: str
    job: UUID | None
    body: dict[str, Any] = field(default_factory=dict[str, Any])


class Written(TypedDict):
    """One event that a statement has written, as it tells of it."""

    seq: int
    job_id: str | None
    type: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it is in the log; `seq` begins at 1 in each project."""

    seq: int
    job_id: UUID | None
    type: str
    body: dict[str, Any]
    at: datetime


# Write the events of `to_tell (value, n)`: with n = 1, 2, … in their order. The caller raises the
# project's event_seq by their number, in `the_project (project_id, event_seq)`.
WRITE: LiteralString = """
    written_events as (
        insert into events (project_id, seq, job_id, type, body)
        select p.project_id, p.event_seq - (select count(*) from to_tell) + x.n,
               (x.value ->> 'job')::uuid, x.value ->> 'type', x.value -> 'body'
          from the_project p, to_tell x
        returning seq, job_id, type, body
    )"""
# All that is in the parameter `events` is to be told.
ALL_GIVEN: LiteralString = """
    to_tell as (
        select value, n from jsonb_array_elements(%(events)s) with ordinality as x (value, n)
    )"""
# What the user said with the job `j`, if nobody has told of that yet.
UNSAID: LiteralString = """
    case when not j.announced
         then baton_said(j.id, j.chain_id, j.kind, j.retry_of, j.args) end"""
# How many events tell that the job `j` has ended.
OF_END: LiteralString = "(case when " + UNSAID + " is null then 1 else 2 end)"
# That `ended_job` (rows of jobs) has ended, where `the_project` is told of it, its event_seq raised
# by OF_END; one job a project. What was said is told before, so that the log has all of it.
TELL_END: LiteralString = (
    """
    told as (
        insert into events (project_id, seq, job_id, type, body)
        select p.project_id, p.event_seq - x.back, j.id, x.type, x.body
          from the_project p join ended_job j using (project_id), lateral (values
            (1, 'chat.said', """
    + UNSAID
    + """),
            (0, 'job.' || j.state,
             jsonb_build_object('kind', j.kind, 'chain', j.chain_id,
                                'error_class', j.error_class, 'error', j.error))
          ) as x (back, type, body)
         where x.body is not null
    )"""
)
# What was written, as a list of `Written`; null: nothing.
TOLD: LiteralString = "(select jsonb_agg(to_jsonb(e) order by e.seq) from written_events e)"


def as_param(events: list[Event]) -> Jsonb:
    """The parameter `events` of a statement with WRITE in it."""
    return Jsonb(
        [{"type": e.type, "job": str(e.job) if e.job else None, "body": e.body} for e in events]
    )


def append(conn: Connection, project_id: str, events: list[Event]) -> list[Written]:
    """Write events that tell of no job's change. Nothing is written of an unknown project."""
    asked = {"project": project_id, "events": as_param(events)}
    for (written,) in conn.execute(APPEND, asked):
        return written or []
    return []


APPEND: LiteralString = (
    "with"
    + ALL_GIVEN
    + """,
    the_project as (
        update projects set event_seq = event_seq + (select count(*) from to_tell)
         where project_id = %(project)s
        returning project_id, event_seq
    ),"""
    + WRITE
    + "select "
    + TOLD
)


def since(conn: Connection, project_id: str, seq: int, limit: int = 200) -> list[Row]:
    """The events after number `seq`, oldest first."""
    with conn.cursor(row_factory=class_row(Row)) as cur:
        return cur.execute(
            """
            select seq, job_id, type, body, at from events
             where project_id = %s and seq > %s order by seq limit %s
            """,
            (project_id, seq, limit),
        ).fetchall()
