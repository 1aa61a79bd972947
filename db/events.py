"""Events: what happened to a project, numbered without a gap.

The number comes from the project's row in the transaction of the change that the
event tells, so numbers are in commit order. Statements that change a job write
their events themselves, with the fragments below; `append` is for the rest.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString
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


@dataclass(frozen=True, slots=True)
class Row:
    """One event as it is in the log; `seq` begins at 1 in each project."""

    seq: int
    job_id: UUID | None
    type: str
    body: dict[str, Any]
    at: datetime


# The row `h` gives project_id and event_seq, already raised by the number of events.
# WRITE writes the parameter `events`; WRITE_SAID what a statement has made of it in `said`.
WRITE_SAID: LiteralString = """
    e as (
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq - (select count(*) from said) + x.n,
               (x.value ->> 'job')::uuid, x.value ->> 'type', x.value -> 'body'
          from h, said as x
    )"""
WRITE: LiteralString = (
    """
    said as (
        select value, n from jsonb_array_elements(%(events)s) with ordinality as x (value, n)
    ),"""
    + WRITE_SAID
)


def as_param(events: list[Event]) -> Jsonb:
    """The parameter `events` of a statement with WRITE in it."""
    return Jsonb(
        [{"type": e.type, "job": str(e.job) if e.job else None, "body": e.body} for e in events]
    )


def append(conn: Connection, project_id: str, events: list[Event]) -> int | None:
    """Write events that tell of no job's change. Returns the newest number, None if unknown."""
    row = conn.execute(
        """
        with h as (
            update projects set event_seq = event_seq + jsonb_array_length(%(events)s)
             where project_id = %(project_id)s
            returning project_id, event_seq
        ),"""
        + WRITE
        + "select event_seq from h",
        {"project_id": project_id, "events": as_param(events)},
    ).fetchone()
    return row[0] if row else None


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
