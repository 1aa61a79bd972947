"""What the ledger has on why a job waits, and whether one that runs lives: facts, no guesses.

Which job goes before it in its lane is asked as db/lanes.py's IN_TURN does, in three probes of
an index (tests/integration/test_waits.py holds the two together).
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
    state: str  # queued or parked
    has_begun: bool  # it ran before
    attempts: int
    rescues: int
    run_at: datetime
    wait_s: float  # until run_at; below zero it is due; infinite for a date that never comes
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


@dataclass(frozen=True, slots=True)
class Fleet:
    """The workers that are online, and what they have to do."""

    workers: int
    slots: int
    running: int
    out: int  # messages that left and that nobody has taken yet
    last_chances: int  # workers that run a job which one more death would set aside
    limit_until: datetime | None  # if every credential of theirs is limited: until when
    limit_reason: str | None


# The job that goes before `j` in its lane: what runs; what has begun; what asked earlier, and
# is not put off to a date.
BEFORE: LiteralString = """
    select * from (
        (select o.*, 1 as rank from jobs o
          where o.project_id = j.project_id and o.lane = j.lane and o.state = 'running'
            and o.id <> j.id limit 1)
        union all
        (select o.*, 2 from jobs o
          where o.project_id = j.project_id and o.lane = j.lane and o.finished_at is null
            and (o.started_at is not null or o.id <> o.chain_id) and o.chain_id <> j.chain_id
          limit 1)
        union all
        (select o.*, 3 from jobs o
          where j.started_at is null and j.id = j.chain_id
            and o.project_id = j.project_id and o.lane = j.lane and o.finished_at is null
            and o.pos < j.pos and o.chain_id <> j.chain_id
            and (o.state <> 'queued' or o.run_at <= now())
          order by o.pos limit 1)
    ) before order by rank limit 1"""

FACTS: LiteralString = (
    """
    select j.id, j.chain_id, j.project_id, j.user_id, j.kind, j.state,
           j.started_at is not null as has_begun, j.attempts, j.rescues, j.run_at,
           case j.run_at when 'infinity' then 'infinity'::float when '-infinity' then '-infinity'
                else extract(epoch from j.run_at - now())::float end as wait_s,
           case when isfinite(j.publish_after)
                then extract(epoch from now() - j.publish_after)::float
                else '-infinity' end as overdue_s,
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
                then extract(epoch from now() - o.claimed_at)::float end as before_run_s
      from jobs j
      left join limits l on l.credential = j.credential and l.until > now()
      left join projects p on p.project_id = j.project_id
      left join lateral ("""
    + BEFORE
    + """) o on true
     where j.id = any(%(ids)s) and j.state in ('queued', 'parked')"""
)


def facts(conn: Connection, ids: Sequence[UUID]) -> list[Facts]:
    """What there is on those of these jobs that wait."""
    with conn.cursor(row_factory=class_row(Facts)) as cur:
        return cur.execute(FACTS, {"ids": list(ids)}).fetchall()


def fleet(conn: Connection, *, silent_after: timedelta) -> Fleet:
    """Who is there to take a job; a worker is online that was heard of within `silent_after`."""
    with conn.cursor(row_factory=class_row(Fleet)) as cur:
        found = cur.execute(
            """
            with online as (
                select w.id, w.slots, l.until, l.reason from workers w
                  left join limits l on l.credential = w.credential and l.until > now()
                 where w.seen_at > now() - %s
            )
            select (select count(*) from online) as workers,
                   (select coalesce(sum(slots), 0)::int from online) as slots,
                   (select count(*) from jobs where state = 'running') as running,
                   (select count(*) from jobs where published_at is not null
                                                and state in ('queued', 'parked')) as out,
                   (select count(distinct worker_id) from jobs
                     where state = 'running' and last_chance) as last_chances,
                   case when free.n = 0 then limited.until end as limit_until,
                   case when free.n = 0 then limited.reason end as limit_reason
              from (select count(*) as n from online where until is null) free
              left join lateral (select until, reason from online where until is not null
                                  order by until limit 1) limited on true
            """,
            (silent_after,),
        ).fetchone()
    assert found
    return found


@dataclass(frozen=True, slots=True)
class Sign:
    """A job that runs: seconds since it was claimed, and since the ledger has heard of its
    agent. Below zero is as good as zero: the clocks are Postgres's."""

    id: UUID
    runs_s: float
    silent_s: float


def signs(conn: Connection, ids: Sequence[UUID]) -> list[Sign]:
    """Those of these jobs that run, with what the ledger has of their agents."""
    with conn.cursor(row_factory=class_row(Sign)) as cur:
        return cur.execute(
            """
            select j.id, extract(epoch from now() - j.claimed_at)::float as runs_s,
                   extract(epoch from now() - greatest(j.claimed_at, t.started_at, (
                       select max(s.updated_at) from transcript_sessions s
                        where s.project_id = j.project_id
                          and s.session_id = t.minted_session_id)))::float as silent_s
              from jobs j
              left join lateral (
                   select started_at, minted_session_id from turns
                    where job_id = j.id order by id desc limit 1) t on true
             where j.id = any(%s) and j.state = 'running'
            """,
            (list(ids),),
        ).fetchall()
