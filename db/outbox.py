"""The jobs table as an outbox: which jobs a message is owed for, now.

A row is due when its `publish_after` has come. Publishing pushes that moment back,
by more each time, so a message that was lost is sent again and one that only waits
is not sent much. Only the first of a lane is published; one that is not first is
looked at again later, or as soon as the chain before it ends.
"""

from datetime import timedelta
from typing import LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from db.attempts import IN_TURN, Message
from db.jobs import NEVER

LOOK_AGAIN = timedelta(seconds=5)  # at a row that was not first in its lane


def take_due(
    conn: Connection, *, room: int, pause: timedelta, longest: timedelta
) -> list[Message]:
    """Up to `room` jobs to publish now, the most urgent first; each goes to one relay.

    `pause` doubles with each publication of a row, up to `longest`. A job that nobody
    has told of yet gets its `job.queued` event here.
    """
    with conn.cursor(row_factory=class_row(Message)) as cur:
        return cur.execute(
            TAKE_DUE,
            {"room": room, "pause": pause, "longest": longest, "look_again": LOOK_AGAIN},
        ).fetchall()


TAKE_DUE: LiteralString = (
    """
    with looked as (
        select q.id, q.priority, q.pos, q.announced, """
    + IN_TURN
    + """ as first
          from jobs q
         where q.state in ('queued', 'parked') and q.publish_after <= now()
         order by q.publish_after limit 500
           for update skip locked
    ), blocked as (
        update jobs set publish_after = now() + %(look_again)s
          from looked where jobs.id = looked.id and not looked.first
    ), due as (
        select id, announced from looked where first order by priority desc, pos limit %(room)s
    ), sent as (
        update jobs
           set publish_after = now() + least(%(pause)s * power(2, least(published, 20)), %(longest)s),
               published = published + 1, published_at = now(), announced = true
          from due where jobs.id = due.id
        returning jobs.id, kind, chain_id, parent_id, published - 1 as published,
                  previous_session_id, project_id, due.announced as told, pos
    ), h as (
        update projects p set event_seq = p.event_seq + s.n
          from (select project_id, count(*) as n from sent where not told group by 1) s
         where p.project_id = s.project_id
        returning p.project_id, p.event_seq, s.n
    ), e as (
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq - h.n
                   + row_number() over (partition by h.project_id order by sent.pos),
               sent.id, 'job.queued',
               jsonb_build_object('kind', sent.kind, 'chain', sent.chain_id)
          from sent join h on h.project_id = sent.project_id where not sent.told
    )
    select id, kind, chain_id, parent_id, published, previous_session_id from sent"""
)


def recall(conn: Connection, *, older_than: timedelta) -> int:
    """Make due again what was published, is unclaimed, and is no longer in the queue.

    For when the queue was seen empty: the messages were lost, or their worker was.
    Returns how many.
    """
    return conn.execute(
        """
        update jobs set publish_after = now()
         where published_at < now() - %s and state in ('queued', 'parked')
           and publish_after > now() and run_at <= now()
        """,
        (older_than,),
    ).rowcount


def tell_ends(conn: Connection) -> int:
    """Write the end of jobs that ended inside a producer's transaction. Returns how many."""
    return conn.execute(
        """
        with t as (
            select id, project_id, kind, chain_id, error from jobs where untold
             order by id limit 100 for update skip locked
        ), told as (
            update jobs set untold = false from t where jobs.id = t.id
        ), h as (
            update projects p set event_seq = p.event_seq + s.n
              from (select project_id, count(*) as n from t group by 1) s
             where p.project_id = s.project_id
            returning p.project_id, p.event_seq, s.n
        )
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq - h.n
                   + row_number() over (partition by h.project_id order by t.id),
               t.id, 'job.cancelled',
               jsonb_build_object('kind', t.kind, 'chain', t.chain_id, 'error', t.error)
          from t join h on h.project_id = t.project_id
        """
    ).rowcount


def release(conn: Connection, credential: str) -> int:
    """Let the jobs that are parked for this credential go on. Returns how many."""
    return conn.execute(
        """
        update jobs set state = 'queued', credential = null, run_at = now(),
               publish_after = now()
         where state = 'parked' and credential = %s
        """,
        (credential,),
    ).rowcount


def adopt(conn: Connection, credential: str) -> int:
    """Take over jobs that wait, until cleared, for a credential other than this one."""
    return conn.execute(
        """
        update jobs set state = 'queued', credential = null, run_at = now(),
               publish_after = now()
         where state = 'parked' and credential <> %s and run_at >= %s
        """,
        (credential, NEVER),
    ).rowcount
