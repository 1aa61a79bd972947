"""What the ledger has on why a job waits, and whether one that runs lives: facts, no guesses.

Which job goes before it in its lane says `baton_before` (db/functions/order.sql), as it does to
relay and workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One job that waits. Lengths of time are in seconds."""

    id: UUID
    chain_id: UUID
    project_id: str
    user_id: str
    kind: str
    races: bool  # it is a race's own
    state: str  # queued or parked
    has_begun: bool  # it ran before
    attempts: int
    rescues: int
    run_at: datetime
    wait_s: float  # until run_at; below zero it is due
    overdue_s: float  # since its message was due; below zero it is not
    out_s: float | None  # since a message for it left that nobody has taken yet
    error_class: str | None
    error: str | None
    lost: str | None  # why its session cannot be resumed, of one that asks
    credential: str | None
    limit_until: datetime | None
    limit_reason: str | None
    is_deleted: bool  # its project is being deleted
    is_gone: bool  # its project is gone, or another user's
    branch_is_gone: bool
    before_id: UUID | None  # the job that goes before it in its lane
    before_chain: UUID | None
    before_kind: str | None
    before_state: str | None
    before_run_s: float | None  # for which that one has been running
    users_others: int  # jobs of its user that run, or are on their way to a worker


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers that are online, what they have to do, and who tells them of it."""

    workers: int
    slots: int  # of those whose credential may be used
    running: int
    out: int  # messages that left and that nobody has taken yet
    last_chances: int  # workers that run a job which one more death would set aside
    limit_until: datetime | None  # if every credential of theirs is limited: until when
    limit_reason: str | None
    relay_silent_s: float | None  # since the latest relay was heard of; None: of none ever
    user_slots: int  # of one user; 0: no limit


FACTS: LiteralString = """
    select j.id, j.chain_id, j.project_id, j.user_id, j.kind, j.args ? 'race' as races, j.state,
           j.started_at is not null as has_begun, j.attempts, j.rescues, j.run_at,
           extract(epoch from j.run_at - now())::float as wait_s,
           extract(epoch from now() - j.publish_after)::float as overdue_s,
           extract(epoch from now() - j.published_at)::float as out_s,
           j.error_class, j.error, j.credential,
           case when j.error_class = 'ask' then (
                select e.body ->> 'code' from events e
                 where e.project_id = j.project_id and e.job_id = j.id
                   and e.type = 'session.resume_failed' order by e.seq desc limit 1) end as lost,
           l.until as limit_until, l.reason as limit_reason,
           exists (select from deletions d where d.ended_at is null
                      and d.todo -> 'projects' ? j.project_id) as is_deleted,
           p.project_id is null or p.user_id <> j.user_id as is_gone,
           j.lane <> 'main' and not exists (
                select from branches b where b.project_id = j.project_id and b.lane = j.lane
                                         and b.promoted_at is null) as branch_is_gone,
           o.id as before_id, o.chain_id as before_chain, o.kind as before_kind,
           o.state as before_state,
           case when o.state = 'running'
                then extract(epoch from now() - o.claimed_at)::float end as before_run_s,
           (select count(*) from jobs r where r.user_id = j.user_id and r.state = 'running')
           + (select count(*) from jobs r
               where r.published_at is not null and r.state in ('queued', 'parked')
                 and r.user_id = j.user_id and r.id <> j.id) as users_others
      from jobs j
      left join limits l on l.credential = j.credential and l.until > now()
      left join projects p on p.project_id = j.project_id
      left join jobs o on o.id = baton_before(j.project_id, j.lane, j.chain_id, j.pos,
                                              j.started_at is not null or j.id <> j.chain_id)
     where j.id = any(%(ids)s) and j.state in ('queued', 'parked')"""


def facts(conn: Connection, ids: Sequence[UUID]) -> list[Facts]:
    """What there is on those of these jobs that wait."""
    with conn.cursor(row_factory=class_row(Facts)) as cur:
        return cur.execute(FACTS, {"ids": list(ids)}).fetchall()


def fleet(conn: Connection, *, silent_after: timedelta, user_slots: int) -> Fleet:
    """Who is there to take a job; a worker is online that was heard of within `silent_after`.
    `user_slots`: what is gone by while no worker has told the ledger."""
    with conn.cursor(row_factory=class_row(Fleet)) as cur:
        found = cur.execute(
            """
            with online as (
                select * from baton_online(%s)
            ), able as (
                select * from online where limit_until is null
            )
            select (select count(*) from online) as workers,
                   (select coalesce(sum(slots), 0)::int from able) as slots,
                   (select count(*) from jobs
                     where state = 'running' and worker_id in (select worker_id from able))
                       as running,
                   (select count(*) from jobs where published_at is not null
                                                and state in ('queued', 'parked')) as out,
                   (select count(distinct worker_id) from jobs
                     where state = 'running' and last_chance) as last_chances,
                   first_lifted.limit_until, first_lifted.limit_reason,
                   (select extract(epoch from now() - max(seen_at))::float from relays)
                       as relay_silent_s,
                   baton_user_slots(%s) as user_slots
              from (select 1) one
              left join lateral (select limit_until, limit_reason from online
                                  where not exists (select from able)
                                  order by limit_until limit 1) first_lifted on true
            """,
            (silent_after, user_slots),
        ).fetchone()
    assert found
    return found


def running_for(conn: Connection, ids: Sequence[UUID]) -> dict[UUID, float]:
    """Of those of these jobs that run, for how many seconds; by Postgres' clock."""
    return dict(
        conn.execute(
            """
            select id, greatest(extract(epoch from now() - claimed_at), 0)::float
              from jobs where id = any(%s) and state = 'running'
            """,
            (list(ids),),
        ).fetchall()
    )
