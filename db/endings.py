"""Endings: how an attempt ends without moving the head, for good or to try again."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from db import events
from db.attempts import Claimed
from db.events import Event
from db.lanes import FOLLOW, GOES_ON, WANTED, Message, Next, follow_params, published


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a job ends without moving the head."""

    state: str
    error_class: str | None = None
    error: str | None = None
    result: dict[str, Any] | None = None
    following: Next | None = None


def finish(
    conn: Connection, job: Claimed, end: End, told: list[Event], publish_after: timedelta
) -> tuple[int | None, list[Message]] | None:
    """End the job for good, with its event, and insert what follows in the chain.

    Returns the newest event number and the messages to publish; None, with nothing
    written, when the attempt was replaced.
    """
    rows = conn.execute(
        FINISH,
        {
            "id": job.id,
            "attempt": job.attempt,
            "state": end.state,
            "error_class": end.error_class,
            "error": end.error,
            "result": Jsonb(end.result) if end.result is not None else None,
            "events": events.as_param(told),
            "version_id": None,
            "new": job.head,
            **follow_params(end.following, publish_after),
        },
    ).fetchall()
    return published(rows)


# Whatever still ran for the job in `f`, and the candidate that it ran on, came to nothing.
TURN_FAILED: LiteralString = """
    t as (
        update turns set outcome = 'failed', error_class = %(error_class)s, ended_at = now()
          from f where turns.job_id = f.id and turns.outcome = 'running'
    ), r as (
        update session_resume_attempts a
           set outcome = 'failed', reason = coalesce(%(error_class)s, %(state)s)
          from f where a.job_id = f.id and a.outcome = 'trying'
    )"""

FINISH: LiteralString = (
    """
    with f as (
        select * from jobs
         where id = %(id)s and attempt = %(attempt)s and state = 'running' for update
    ), k as (
        select * from f
    ),"""
    + GOES_ON
    + """,
    d as (
        update jobs set state = %(state)s, finished_at = now(), lease_until = null,
               error_class = %(error_class)s, error = %(error)s,
               result = case when %(result)s::jsonb is null then jobs.result
                             else coalesce(jobs.result, '{}') || %(result)s end
          from f where jobs.id = f.id
        returning jobs.id
    ),"""
    + TURN_FAILED
    + """,
    h as (
        update projects p set event_seq = p.event_seq + (select count(*) from said)
          from f where p.project_id = f.project_id
        returning p.project_id, p.event_seq
    ),"""
    + events.WRITE_SAID
    + ","
    + FOLLOW
    + """
    select h.event_seq, n.* from d left join h on true left join n on true"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why and how long a job goes back to wait."""

    state: str = "queued"  # or parked
    until: datetime | None = None  # an instant; else `delay` from now
    delay: timedelta = timedelta(0)
    counted: bool = True  # whether the attempt is spent
    credential: str | None = None  # wait until its limit ends, whatever it is by now
    error_class: str | None = None
    error: str | None = None


def put_back(
    conn: Connection, job: Claimed, wait: Wait, told: list[Event]
) -> tuple[int | None] | None:
    """Let the job wait for another attempt; the relay publishes it when its time has come.

    None, with nothing written, when the attempt was replaced, or a cancel or a newer request
    wants it to end.
    """
    return conn.execute(
        PUT_BACK,
        {
            "id": job.id,
            "attempt": job.attempt,
            "state": wait.state,
            "until": wait.until,
            "delay": wait.delay,
            "uncounted": 0 if wait.counted else 1,
            "credential": wait.credential,
            "error_class": wait.error_class,
            "error": wait.error,
            "events": events.as_param(told),
        },
    ).fetchone()


PUT_BACK: LiteralString = (
    """
    with f as (
        select * from jobs j
         where id = %(id)s and attempt = %(attempt)s and state = 'running'
           and """
    + WANTED
    + """ = 'go on' for update
    ), l as (  -- held: whoever clears it does so before us, or sees the job parked
        select until from limits where credential = %(credential)s for share
    ), w as (
        select f.id, x.* from f, lateral (
            select %(state)s::text as state, %(credential)s::text as credential,
                   coalesce((select until from l), %(until)s, now() + %(delay)s) as run_at
             where %(credential)s::text is null or exists (select from l)
            union all
            select 'queued', null, now()
             where %(credential)s::text is not null and not exists (select from l)) x
    ), d as (
        update jobs set state = w.state, lease_until = null,
               attempts = jobs.attempts - %(uncounted)s,
               run_at = w.run_at, publish_after = w.run_at,
               published = 0, published_at = null, credential = w.credential,
               error_class = %(error_class)s, error = %(error)s
          from w where jobs.id = w.id
        returning jobs.id
    ),"""
    + TURN_FAILED
    + """,
    h as (
        update projects p set event_seq = p.event_seq + jsonb_array_length(%(events)s)
          from f where p.project_id = f.project_id
        returning p.project_id, p.event_seq
    ),"""
    + events.WRITE
    + "select h.event_seq from d left join h on true"
)


def of_attempt(conn: Connection, job: Claimed) -> tuple[str, str | None, str | None] | None:
    """How this attempt ended: the job's state, error class and error. None while it runs,
    and once another attempt has the job."""
    return conn.execute(
        """
        select state, error_class, error from jobs
         where id = %s and attempt = %s and state <> 'running'
        """,
        (job.id, job.attempt),
    ).fetchone()


GONE = {
    "project_gone": "The project is gone or belongs to another user now.",
    "branch_gone": "The branch was promoted or dropped: ask anew, from a session of `baton chain`.",
}


def fail_orphan(conn: Connection, job_id: UUID) -> tuple[str, str] | None:
    """Fail a waiting job whose project or branch is gone, or is not its user's any more.

    Returns the error class and the sentence for people; None if it is not one of these.
    """
    return conn.execute(FAIL_ORPHAN, {"id": job_id, "texts": Jsonb(GONE)}).fetchone()


def refuse(conn: Connection, job_id: UUID, error_class: str, error: str) -> bool:
    """Fail a waiting job that can never be claimed. Whether it was waiting."""
    asked = {"id": job_id, "error_class": error_class, "error": error}
    return conn.execute(REFUSE, asked).rowcount == 1


REFUSE: LiteralString = """
    with f as (
        update jobs set state = 'failed', finished_at = now(), error_class = %(error_class)s,
               error = %(error)s
         where id = %(id)s and state in ('queued', 'parked')
        returning jobs.*
    ), h as (
        update projects p set event_seq = p.event_seq + 1 from f
         where p.project_id = f.project_id and p.user_id = f.user_id
        returning p.project_id, p.event_seq
    ), e as (
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq, f.id, 'job.failed',
               jsonb_build_object('kind', f.kind, 'chain', f.chain_id,
                                  'error_class', f.error_class, 'error', f.error)
          from h, f
    )
    select from f"""

# Told only where the project is still the user's. No row is locked that is no orphan's.
FAIL_ORPHAN: LiteralString = """
    with q as (
        select q.id, x.gone
          from jobs q, lateral (select case
               when not exists (select from projects p where p.project_id = q.project_id
                                                         and p.user_id = q.user_id)
               then 'project_gone'
               when q.lane <> 'main' and not exists (
                   select from branches b where b.project_id = q.project_id
                                            and b.lane = q.lane and b.promoted_at is null)
               then 'branch_gone' end as gone) x
         where q.id = %(id)s and q.state in ('queued', 'parked') and x.gone is not null
           for update of q
    ), f as (
        update jobs set state = 'failed', finished_at = now(), error_class = q.gone,
               error = %(texts)s::jsonb ->> q.gone
          from q where jobs.id = q.id
        returning jobs.*
    ), h as (
        update projects p set event_seq = p.event_seq + 1 from f
         where p.project_id = f.project_id and f.error_class = 'branch_gone'
        returning p.project_id, p.event_seq
    ), e as (
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq, f.id, 'job.failed',
               jsonb_build_object('kind', f.kind, 'chain', f.chain_id,
                                  'error_class', f.error_class, 'error', f.error)
          from h, f
    )
    select error_class, error from f"""
