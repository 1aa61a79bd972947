"""Endings: how an attempt ends without moving the head, for good or to try again."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from db.core import events
from db.core.events import Event, Written
from db.jobs import lanes
from db.jobs.attempts import Claimed
from db.jobs.lanes import Message, Next


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
) -> tuple[list[Written], list[Message]] | None:
    """End the job for good, with its event, and insert what follows in the chain.

    Returns the events that were written and the messages to publish; None, with nothing
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
            **lanes.follow_params(end.following, publish_after),
        },
    ).fetchall()
    return (rows[0][0] or [], lanes.messages([row[1:] for row in rows])) if rows else None


# Whatever still ran for `the_job`, and the candidate that it ran on, came to nothing.
TURN_FAILED: LiteralString = """
    failed_turn as (
        update turns set outcome = 'failed', error_class = %(error_class)s, ended_at = now()
          from the_job j where turns.job_id = j.id and turns.outcome = 'running'
    ), failed_candidate as (
        update session_resume_attempts a
           set outcome = 'failed', reason = coalesce(%(error_class)s, %(state)s)
          from the_job j where a.job_id = j.id and a.outcome = 'trying'
    )"""
# The project's row, if it is still there, numbers the events.
COUNT_EVENTS: LiteralString = """
    the_project as (
        update projects p set event_seq = p.event_seq + (select count(*) from to_tell)
          from the_job j where p.project_id = j.project_id
        returning p.project_id, p.event_seq
    )"""

FINISH: LiteralString = (
    """
    with the_job as (  -- the fence; a lease that ran out is no reason to lose the ending
        select """
    + lanes.OF_JOB
    + """ from jobs
         where id = %(id)s and attempt = %(attempt)s and state = 'running' for update
    ),"""
    + lanes.GOES_ON
    + """,
    ended_job as (
        update jobs set state = %(state)s, finished_at = now(), lease_until = null,
               error_class = %(error_class)s, error = %(error)s,
               result = case when %(result)s::jsonb is null then jobs.result
                             else coalesce(jobs.result, '{}') || %(result)s end
          from the_job j where jobs.id = j.id
        returning jobs.id
    ),"""
    + TURN_FAILED
    + ","
    + COUNT_EVENTS
    + ","
    + events.WRITE
    + """,
    the_former as (
        select * from the_job
    ),"""
    + lanes.FOLLOW
    + "select "
    + events.TOLD
    + ", "
    + lanes.FOLLOWING
    + " from ended_job left join next_job on true"
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
) -> list[Written] | None:
    """Let the job wait for another attempt; the relay publishes it when its time has come.

    Returns the events that were written; None, with nothing written, when the attempt was
    replaced, or a cancel or a newer request wants it to end.
    """
    row = conn.execute(
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
    return (row[0] or []) if row else None


PUT_BACK: LiteralString = (
    """
    with the_job as (  -- the fence, and nobody wants it to end
        select id, project_id from jobs j
         where id = %(id)s and attempt = %(attempt)s and state = 'running'
           and """
    + lanes.WANTED
    + """ = 'go on' for update
    ), the_limit as (  -- held: whoever clears it does so before us, or sees the job parked
        select until from limits where credential = %(credential)s for share
    ), the_wait as (  -- as was asked; at once if it was for a limit that is cleared by now
        select j.id, x.* from the_job j, lateral (
            select %(state)s::text as state, %(credential)s::text as credential,
                   coalesce((select until from the_limit), %(until)s, now() + %(delay)s) as run_at
             where %(credential)s::text is null or exists (select from the_limit)
            union all
            select 'queued', null, now()
             where %(credential)s::text is not null and not exists (select from the_limit)) x
    ), waiting_job as (
        update jobs set state = w.state, lease_until = null,
               attempts = jobs.attempts - %(uncounted)s,
               run_at = w.run_at, publish_after = w.run_at,
               published = 0, published_at = null, credential = w.credential,
               error_class = %(error_class)s, error = %(error)s
          from the_wait w where jobs.id = w.id
        returning jobs.id
    ),"""
    + TURN_FAILED
    + ","
    + events.ALL_GIVEN
    + ","
    + COUNT_EVENTS
    + ","
    + events.WRITE
    + "select "
    + events.TOLD
    + " from waiting_job"
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


REFUSE: LiteralString = (
    """
    with ended_job as (
        update jobs set state = 'failed', finished_at = now(), error_class = %(error_class)s,
               error = %(error)s
         where id = %(id)s and state in ('queued', 'parked')
        returning jobs.*
    ), the_project as (  -- another user's is not told of it
        update projects p set event_seq = p.event_seq + """
    + events.OF_END
    + """ from ended_job j
         where p.project_id = j.project_id and p.user_id = j.user_id
        returning p.project_id, p.event_seq
    ),"""
    + events.TELL_END
    + "select from ended_job"
)

FAIL_ORPHAN: LiteralString = (
    """
    with the_orphan as (  -- no row is locked that is no orphan's
        select j.id, x.gone
          from jobs j, lateral (select case
               when not exists (select from projects p where p.project_id = j.project_id
                                                         and p.user_id = j.user_id)
               then 'project_gone'
               when j.lane <> 'main' and not exists (
                   select from branches b where b.project_id = j.project_id
                                            and b.lane = j.lane and b.promoted_at is null)
               then 'branch_gone' end as gone) x
         where j.id = %(id)s and j.state in ('queued', 'parked') and x.gone is not null
           for update of j
    ), ended_job as (
        update jobs set state = 'failed', finished_at = now(), error_class = o.gone,
               error = %(texts)s::jsonb ->> o.gone
          from the_orphan o where jobs.id = o.id
        returning jobs.*
    ), the_project as (  -- told only where the project is still the user's
        update projects p set event_seq = p.event_seq + """
    + events.OF_END
    + """ from ended_job j
         where p.project_id = j.project_id and j.error_class = 'branch_gone'
        returning p.project_id, p.event_seq
    ),"""
    + events.TELL_END
    + "select error_class, error from ended_job"
)
