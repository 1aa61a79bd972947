"""Jobs whose runner has died: back to the queue, at once and without spending an attempt.

A row that kills its workers again and again is set aside instead (quarantined), with an
event. A running row that was to be cancelled is cancelled.
"""

from typing import LiteralString
from uuid import UUID

from psycopg import Connection, errors
from psycopg.types.json import Jsonb

from db.attempts import Claimed
from db.lanes import Next

LOCK_TIMEOUT = "500ms"


def expired(conn: Connection) -> list[UUID]:
    """Running jobs whose lease has run out, the longest ago first, up to 100; but for those of
    which somebody holds the row: to wait for each of these would keep the others waiting."""
    rows = conn.execute(
        """
        select id from jobs where state = 'running' and lease_until < now()
         order by lease_until limit 100 for update skip locked
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
    waited for; without, only a lease that has run out is taken. Rows that somebody holds
    are not waited for long: the job is looked at again.
    """
    try:
        with conn.transaction():
            conn.execute("select set_config('lock_timeout', %s, true)", (LOCK_TIMEOUT,))
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
        """
        insert into jobs (id, chain_id, parent_id, project_id, user_id, lane, pos, kind, args,
                          priority, version_id, previous_session_id, publish_after)
        select %(next_id)s, j.chain_id, j.id, j.project_id, j.user_id, j.lane, j.pos,
               %(kind)s, %(args)s, j.priority, j.version_id, j.previous_session_id, now()
          from jobs j where j.id = %(job)s
        """,
        {
            "job": job_id,
            "next_id": following.id,
            "kind": following.kind,
            "args": Jsonb(following.args),
        },
    )


RESCUE: LiteralString = """
    with f as (
        select j.*, case when j.cancel_requested_at is not null then 'cancelled'
                         when j.rescues + 1 >= %(limit)s then 'quarantined'
                         else 'queued' end as becomes
          from jobs j
         where j.id = %(id)s and j.state = 'running'
           and (j.attempt = %(attempt)s or (%(attempt)s::uuid is null and j.lease_until < now()))
           for update
    ), d as (
        update jobs set state = f.becomes, lease_until = null, rescues = f.rescues + 1,
               attempts = greatest(f.attempts - 1, 0),
               run_at = now(), publish_after = now(), published = 0, published_at = null,
               finished_at = case when f.becomes <> 'queued' then now() end,
               error_class = case f.becomes when 'cancelled' then 'cancelled' else 'worker_died' end,
               error = case f.becomes
                       when 'queued' then 'Its worker died; another takes over.'
                       when 'cancelled' then 'Cancelled on request.'
                       else 'It killed ' || f.rescues + 1 || ' workers and was set aside:'
                            ' look at it, then `baton retry` it.' end
          from f where jobs.id = f.id
        returning jobs.id, jobs.error_class, jobs.error
    ), t as (
        update turns set outcome = 'abandoned', ended_at = now(), error_class = 'worker_died'
          from f where turns.job_id = f.id and turns.outcome = 'running'
    ), r as (
        update session_resume_attempts a set outcome = 'abandoned', reason = 'worker_died'
          from f where a.job_id = f.id and a.outcome = 'trying'
    ), h as (
        update projects p set event_seq = p.event_seq + 1
          from f where p.project_id = f.project_id
        returning p.project_id, p.event_seq
    ), e as (
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq, f.id,
               case f.becomes when 'queued' then 'job.rescued'
                              else 'job.' || f.becomes end,
               jsonb_build_object('kind', f.kind, 'chain', f.chain_id, 'rescues', f.rescues + 1,
                                  'attempt', f.attempt,
                                  'error_class', d.error_class, 'error', d.error)
          from h, f, d
    )
    select f.becomes from f, d"""
