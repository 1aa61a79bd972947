"""Jobs whose runner has died: back to the queue, at once and without spending an attempt.

A row that kills its workers again and again is set aside instead (quarantined), with an
event. A running row that was to be cancelled is cancelled.
"""

from datetime import timedelta
from typing import LiteralString
from uuid import UUID

from psycopg import Connection, errors

from db.jobs.attempts import Claimed
from db.jobs.lanes import NEXT_JOB, Next, follow_params

LOCK_TIMEOUT = "500ms"  # for whoever holds a turn of it


def expired(conn: Connection) -> list[UUID]:
    """Running jobs whose lease has run out, the longest ago first, up to 100; but for those of
    which somebody holds the row or the project's: to wait for each of these would keep the
    others waiting."""
    rows = conn.execute(
        """
        select id from (
            select id, project_id from jobs where state = 'running' and lease_until < now()
             order by lease_until offset 0 for update skip locked) dead
         where baton_hold_project(project_id) limit 100
        """
    )
    return [job_id for (job_id,) in rows]


def running_on(conn: Connection, boot: str) -> list[tuple[UUID, UUID, int, int]]:
    """What runs on this host: (job, attempt, pid, the pid's start)."""
    return conn.execute(
        """
        select id, attempt, pid, pid_started from jobs
         where state = 'running' and boot = %s and attempt is not null
        """,
        (boot,),
    ).fetchall()


def rescue(conn: Connection, job_id: UUID, *, attempt: UUID | None, limit: int) -> str | None:
    """Take the job from a dead runner; returns its new state, None if it was not to be taken.

    With `attempt`, the runner of that attempt is known to be dead, and the lease is not
    waited for; without, only a lease that has run out is taken. Whoever holds its row or
    its project's is not waited for: the job is looked at again.
    """
    try:
        with conn.transaction():
            conn.execute("select set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
            if conn.execute(HOLD, (job_id,)).fetchone() != (True,):
                return None
            row = conn.execute(
                RESCUE, {"id": job_id, "attempt": attempt, "limit": limit}
            ).fetchone()
    except errors.LockNotAvailable:
        return None
    return row[0] if row else None


def uncount(conn: Connection, job: Claimed) -> bool:
    """The attempt was taken from a worker that lives: the job did not kill it. Whether it was.

    Said again, it changes nothing.
    """
    return (
        conn.execute(
            """
            update jobs j set rescues = greatest(rescues - 1, 0), uncounted = %(attempt)s
             where id = %(id)s and finished_at is null and uncounted is distinct from %(attempt)s
               and exists (select from events e
                            where e.project_id = j.project_id and e.job_id = j.id
                              and e.type = 'job.rescued'
                              and e.body ->> 'attempt' = %(attempt)s::text)
            """,
            {"id": job.id, "attempt": job.attempt},
        ).rowcount
        == 1
    )


def follow(conn: Connection, job_id: UUID, following: Next) -> None:
    """Insert what follows in the chain of a job that was set aside. Wants a transaction with
    `rescue`; the relay publishes it, and tells of it."""
    conn.execute(
        FOLLOW,
        {
            "job": job_id,
            "version_id": None,
            "new": None,
            **follow_params(following, publish_after=timedelta(0)),
        },
    )


FOLLOW: LiteralString = (
    """
    with the_former as (
        select * from jobs where id = %(job)s
    ), goes_on as (
        select true as yes
    ), sending as (
        select false as now, false as told
    ),"""
    + NEXT_JOB
    + "select from next_job"
)

HOLD: LiteralString = """
    select baton_hold_project(project_id) from (
        select project_id from jobs where id = %s for update skip locked) held"""

RESCUE: LiteralString = """
    with the_job as (  -- a runner that is known to be dead, or a lease that has run out
        select j.*, case when j.cancel_requested_at is not null then 'cancelled'
                         when j.rescues + 1 >= %(limit)s then 'quarantined'
                         else 'queued' end as becomes
          from jobs j
         where j.id = %(id)s and j.state = 'running'
           and (j.attempt = %(attempt)s or (%(attempt)s::uuid is null and j.lease_until < now()))
           for update
    ), rescued_job as (  -- the attempt is not spent
        update jobs set state = j.becomes, lease_until = null, rescues = j.rescues + 1,
               attempts = greatest(j.attempts - 1, 0),
               run_at = now(), publish_after = now(), published = 0, published_at = null,
               finished_at = case when j.becomes <> 'queued' then now() end,
               error_class = case j.becomes when 'cancelled' then 'cancelled' else 'worker_died' end,
               error = case j.becomes
                       when 'queued' then 'Its worker died; another takes over.'
                       when 'cancelled' then 'Cancelled on request.'
                       else 'It killed ' || j.rescues + 1 || ' workers and was set aside:'
                            ' look at it, then `baton retry` it.' end
          from the_job j where jobs.id = j.id
        returning jobs.id, jobs.error_class, jobs.error
    ), abandoned_turn as (
        update turns set outcome = 'abandoned', ended_at = now(), error_class = 'worker_died'
          from the_job j where turns.job_id = j.id and turns.outcome = 'running'
    ), abandoned_candidate as (
        update session_resume_attempts a set outcome = 'abandoned', reason = 'worker_died'
          from the_job j where a.job_id = j.id and a.outcome = 'trying'
    ), the_project as (
        update projects p set event_seq = p.event_seq + 1
          from the_job j where p.project_id = j.project_id
        returning p.project_id, p.event_seq
    ), told as (
        insert into events (project_id, seq, job_id, type, body)
        select p.project_id, p.event_seq, j.id,
               case j.becomes when 'queued' then 'job.rescued'
                              else 'job.' || j.becomes end,
               jsonb_build_object('kind', j.kind, 'chain', j.chain_id, 'rescues', j.rescues + 1,
                                  'attempt', j.attempt,
                                  'error_class', r.error_class, 'error', r.error)
          from the_project p, the_job j, rescued_job r
    )
    select j.becomes from the_job j, rescued_job"""
