"""The jobs table as an outbox: which jobs a message is owed for, now.

A relay looks at each row when its `publish_after` has come: what is first in its lane is
ready, and of what is ready it publishes as much as there is room for, in the order that
db/functions/order.sql says. A message that nobody claims is owed again after a pause that
doubles, so one that was lost is sent again and one that only waits is not sent much.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from db.core.events import UNSAID, Written
from db.jobs.lanes import Message

LOOK_AGAIN = timedelta(seconds=2)  # at what is not first in its lane; later and later
MANY = 500  # rows in one look, and ends told at once


@dataclass(frozen=True, slots=True)
class Room:
    """How much the workers can take. `slots` are those whose credential may be used; `busy` is
    what runs, `out` what was published and not claimed."""

    workers: int
    slots: int
    busy: int
    out: int


@dataclass(frozen=True, slots=True)
class Owed:
    """What there may be to do now: ends to `tell`, rows to `look` at, jobs that are `ready` to be
    published, or messages that nobody claimed and that may be `lost`."""

    tell: bool
    look: bool
    ready: bool
    lost: bool


def owes(conn: Connection, *, older_than: timedelta) -> Owed:
    """Each question is a probe of an index: what nothing is owed for is not asked for at length."""
    with conn.cursor(row_factory=class_row(Owed)) as cur:
        found = cur.execute(OWES, {"older_than": older_than}).fetchone()
    assert found
    return found


OWES: LiteralString = """
    select exists (select from jobs where untold) as tell,
           coalesce((select min(publish_after) from jobs  -- the least: for the index
                      where state in ('queued', 'parked') and not ready) <= now(), false)
               or exists (select from lane_ends) as look,
           exists (select from user_turns where priority is not null) as ready,
           exists (select from jobs
                    where published_at is not null
                      and published_at < now() - %(older_than)s::interval and state in ('queued', 'parked')
                      and publish_after > now() and run_at <= now()) as lost"""


def look(conn: Connection) -> list[tuple[str, Written]]:
    """Look at what is due: what is first in its lane is ready now, the rest is looked at later.

    A job that nobody has told of yet gets its `job.queued` here, and `chat.said` if its user says
    something with it; returned are these, each with its project. Another relay that is at it just now does this one's work: then nothing is done.
    """
    return conn.execute(LOOK, (MANY, LOOK_AGAIN)).fetchall()


LOOK: LiteralString = """
    select project_id, jsonb_build_object('seq', seq, 'job_id', job_id, 'type', type, 'body', body)
      from baton_look(%s, %s)"""


def publish(
    conn: Connection, *, room: int, user_slots: int, pause: timedelta, longest: timedelta
) -> list[Message]:
    """Up to `room` ready jobs to publish now, whoever's turn it is first. `user_slots`: how many
    of one user may run at a time; 0: any number. `pause` doubles with each publication of a
    row, up to `longest`."""
    with conn.cursor(row_factory=class_row(Message)) as cur:
        return cur.execute(
            "select * from baton_publish(%s, %s, %s, %s)", (room, user_slots, pause, longest)
        ).fetchall()


def note_served(conn: Connection, user_id: str) -> None:
    """A job of the user's begins that no relay has chosen: its chain went on by itself."""
    conn.execute(
        """
        insert into user_turns as u (user_id, served_at) values (%s, now())
            on conflict (user_id) do update set served_at = excluded.served_at
        """,
        (user_id,),
    )


def room(conn: Connection, *, silent_after: timedelta) -> Room:
    """What the workers that were heard of can take, and what they have."""
    with conn.cursor(row_factory=class_row(Room)) as cur:
        found = cur.execute(ROOM, {"silent_after": silent_after}).fetchone()
    assert found
    return found


ROOM: LiteralString = """
    with online as (
        select * from baton_online(%(silent_after)s)
    ), able as (  -- where all are limited a message parks its job, once
        select * from online
         where limit_until is null or not exists (select from online where limit_until is null)
    )
    select (select count(*) from online) as workers,
           (select coalesce(sum(slots), 0) from able) as slots,
           (select count(*) from jobs where state = 'running'
                                        and worker_id in (select worker_id from able)) as busy,
           (select count(*) from jobs where published_at is not null
                                        and state in ('queued', 'parked')) as out"""


def recall(conn: Connection, *, older_than: timedelta) -> int:
    """Make due again what was published, is unclaimed, and is no longer in the queue.

    For when the queue was seen empty: the messages were lost, or their worker was.
    Returns how many.
    """
    return conn.execute(
        """
        with lost_messages as (  -- not in a subquery, which a plan may run again for each row
            select id from jobs
             where published_at is not null and published_at < now() - %s
               and state in ('queued', 'parked') and publish_after > now() and run_at <= now()
             limit %s for update skip locked
        )
        update jobs set publish_after = now() from lost_messages m where jobs.id = m.id
        """,
        (older_than, MANY),
    ).rowcount


def tell_ends(conn: Connection) -> int:
    """Write the end of jobs that ended inside a producer's transaction, and what was said with them
    if nobody has told of it. Returns how many."""
    row = conn.execute(TELL_ENDS, {"many": MANY}).fetchone()
    assert row
    return row[0]


TELL_ENDS: LiteralString = (
    """
    with free_projects as (  -- who forgot a transaction on one keeps no other's ends waiting
        select project_id from projects
         where project_id in (select project_id from jobs where untold)
         limit %(many)s for no key update skip locked
    ), ended_jobs as (
        select id, project_id, kind, chain_id, pos, error_class, error, """
    + UNSAID
    + """ as said from jobs j
         where untold and (project_id in (select project_id from free_projects)
                           or not exists (select from projects p
                                           where p.project_id = j.project_id))
         order by id limit %(many)s for update skip locked
    ), told_jobs as (
        update jobs set untold = false from ended_jobs j where jobs.id = j.id
    ), the_projects as (
        update projects p set event_seq = p.event_seq + j.n
          from (select project_id, count(*) + count(said) as n from ended_jobs group by 1) j
         where p.project_id = j.project_id
        returning p.project_id, p.event_seq - j.n as before
    ), written as (
        insert into events (project_id, seq, job_id, type, body)
        select p.project_id,
               p.before + row_number() over (partition by p.project_id order by j.pos, j.id, x.n),
               j.id, x.type, x.body
          from ended_jobs j join the_projects p on p.project_id = j.project_id, lateral (values
            (1, 'chat.said', j.said),
            (2, 'job.cancelled',
             jsonb_build_object('kind', j.kind, 'chain', j.chain_id,
                                'error_class', j.error_class, 'error', j.error))
          ) as x (n, type, body)
         where x.body is not null
        returning type
    )
    select count(*) from written where type = 'job.cancelled'"""
)


# A parked job goes on: its credential may be used again.
UNPARK: LiteralString = """
    update jobs set state = 'queued', credential = null, run_at = now(), publish_after = now()
     where """


def release(conn: Connection, credential: str) -> int:
    """Let the jobs that are parked for this credential go on. Returns how many."""
    parked: LiteralString = UNPARK + "state = 'parked' and credential = %s"
    return conn.execute(parked, (credential,)).rowcount


def adopt(conn: Connection, *, silent_after: timedelta) -> int:
    """Let jobs that are parked for a credential go on where a worker has one that may be used:
    the key was replaced, or workers have several. Returns how many."""
    return conn.execute(
        UNPARK
        + """
         id = any (array (select id from jobs where state = 'parked' and credential is not null
                           limit %s for update skip locked))  -- an array is made once
           and baton_can_work(%s)
        """,
        (MANY, silent_after),
    ).rowcount
