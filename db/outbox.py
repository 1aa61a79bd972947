"""The jobs table as an outbox: which jobs a message is owed for, now.

A row is due when its `publish_after` has come. Publishing pushes that moment back,
by more each time, so a message that was lost is sent again and one that only waits
is not sent much. Only the first of a lane is published; one that is not first is
looked at again later, or as soon as the chain before it ends.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from db.jobs import NEVER
from db.lanes import IN_TURN, Message

LOOK_AGAIN = timedelta(seconds=2)  # at the next of a lane; at the one after it in twice that


@dataclass(frozen=True, slots=True)
class Due(Message):
    """A message that is owed; `seq` is the number of its `job.queued`, if that is new."""

    project_id: str
    seq: int | None


def owes(conn: Connection, *, older_than: timedelta) -> bool:
    """Whether there may be anything for `take_due`, `recall` or `tell_ends` to do now."""
    row = conn.execute(
        """
        select exists (select from jobs
                        where state in ('queued', 'parked') and publish_after <= now())
            or exists (select from jobs
                        where published_at < now() - %s and state in ('queued', 'parked')
                          and publish_after > now() and run_at <= now())
            or exists (select from jobs where untold)
        """,
        (older_than,),
    ).fetchone()
    return bool(row and row[0])


def take_due(conn: Connection, *, room: int, pause: timedelta, longest: timedelta) -> list[Due]:
    """Up to `room` jobs to publish now, the most urgent first; each goes to one relay.

    `pause` doubles with each publication of a row, up to `longest`. A job that nobody
    has told of yet gets its `job.queued` event here.
    """
    with conn.cursor(row_factory=class_row(Due)) as cur:
        return cur.execute(
            TAKE_DUE,
            {"room": room, "pause": pause, "longest": longest, "look_again": LOOK_AGAIN},
        ).fetchall()


# Of the jobs in `held`, those of which an event may be written now: nobody else holds their
# project's row. One that an operator forgot must not stop the relay for all the others.
FREE: LiteralString = """
    free as (
        select project_id from projects p
         where project_id in (select project_id from held where not told)
           for no key update of p skip locked
    ), able as (
        select * from held
         where told or project_id in (select project_id from free)
            or not exists (select from projects p where p.project_id = held.project_id)
    )"""

# Numbers for the events of several projects at once: `untold` says how many each needs.
RAISED: LiteralString = """
    h as (
        update projects p set event_seq = p.event_seq + untold.n
          from untold where p.project_id = untold.project_id
        returning p.project_id, p.event_seq, untold.n
    )"""

TAKE_DUE: LiteralString = (
    """
    with looked as materialized (  -- without a lock: most are only looked at
        select q.id, q.project_id, q.lane, q.priority, q.pos, """
    + IN_TURN
    + """ as first
          from (select * from jobs
                 where state in ('queued', 'parked') and publish_after <= now()
                 order by priority desc, publish_after limit 500) q
    ), wanted as (
        (select id, true as first, 0 as place from looked where first
          order by priority desc, pos limit %(room)s)
        union all
        select id, false, row_number() over (partition by project_id, lane order by pos)
          from looked where not first
    ), held as (  -- what another relay has taken meanwhile is not due any more
        select jobs.id, jobs.project_id, wanted.place, wanted.first,
               jobs.announced or not wanted.first as told
          from jobs join wanted using (id)
         where jobs.state in ('queued', 'parked') and jobs.publish_after <= now()
           for update of jobs skip locked
    ),"""
    + FREE
    + """, blocked as (
        update jobs set publish_after = now() + least(%(look_again)s::interval * greatest(held.place, 1), %(longest)s)
          from held where jobs.id = held.id
           and (not held.first or held.id not in (select id from able))
    ), sent as (
        update jobs
           set publish_after = now() + least(%(pause)s::interval * power(2, least(published, 20)), %(longest)s),
               published = published + 1, published_at = now(), messages = messages + 1,
               announced = true
          from able where jobs.id = able.id and able.first
        returning jobs.id, kind, chain_id, parent_id, messages - 1 as published,
                  previous_session_id, jobs.project_id, able.told, priority, pos
    ), untold as (
        select project_id, count(*) as n from sent where not told group by 1
    ),"""
    + RAISED
    + """, e as (
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq - h.n
                   + row_number() over (partition by h.project_id order by sent.pos),
               sent.id, 'job.queued',
               jsonb_build_object('kind', sent.kind, 'chain', sent.chain_id)
          from sent join h on h.project_id = sent.project_id where not sent.told
        returning job_id, seq
    )
    select sent.id, kind, chain_id, parent_id, published, previous_session_id,
           sent.project_id, e.seq
      from sent left join e on e.job_id = sent.id
     order by priority desc, pos"""
)


def recall(conn: Connection, *, older_than: timedelta) -> int:
    """Make due again what was published, is unclaimed, and is no longer in the queue.

    For when the queue was seen empty: the messages were lost, or their worker was.
    Returns how many.
    """
    return conn.execute(
        """
        update jobs set publish_after = now()
         where id in (select id from jobs
                       where published_at < now() - %s and state in ('queued', 'parked')
                         and publish_after > now() and run_at <= now()
                       limit 500 for update skip locked)
        """,
        (older_than,),
    ).rowcount


def tell_ends(conn: Connection) -> int:
    """Write the end of jobs that ended inside a producer's transaction. Returns how many."""
    return conn.execute(
        """
        with held as (
            select id, project_id, kind, chain_id, pos, error_class, error, false as told
              from jobs where untold order by id limit 100 for update skip locked
        ),"""
        + FREE
        + """, t as (
            select * from able
        ), told as (
            update jobs set untold = false from t where jobs.id = t.id
        ), untold as (
            select project_id, count(*) as n from t group by 1
        ),"""
        + RAISED
        + """
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq - h.n
                   + row_number() over (partition by h.project_id order by t.pos, t.id),
               t.id, 'job.cancelled',
               jsonb_build_object('kind', t.kind, 'chain', t.chain_id,
                                  'error_class', t.error_class, 'error', t.error)
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
