"""Attempts: who runs a job, and how that ends.

The lease is the running row: `attempt` is the fence and `lease_until` its end.
Every write for a running job states the fence, and the row decides.

        claim                                  advance / finish
    queued ──────────────► running ──────────────────────────► done failed
    parked ◄── put_back ──┘      └── put_back (by a rescue) ──► quarantined cancelled
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection, errors
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from config.settings import settings
from db import events
from db.events import Event


@dataclass(frozen=True, slots=True)
class Runner:
    """Which process runs an attempt: enough to tell, later, whether it still lives."""

    worker_id: str
    host: str
    boot: str
    pid: int
    pid_started: int
    credential: str  # hash; claims are refused while it is limited


@dataclass(frozen=True, slots=True)
class Claimed:
    """A running job, as its runner sees it."""

    id: UUID
    attempt: UUID
    chain_id: UUID
    parent_id: UUID | None
    project_id: str
    user_id: str
    lane: str
    kind: str
    args: dict[str, Any]
    version_id: str | None
    previous_session_id: str | None
    attempts: int
    rescues: int
    result: dict[str, Any] | None
    head: str | None
    workspace: str | None
    fresh_next: bool
    seq: int  # of `job.started`
    was_announced: bool = True  # else the claim wrote `job.queued` too


@dataclass(frozen=True, slots=True)
class Message:
    """What is published for a job: a wake-up that names it."""

    id: UUID
    kind: str
    chain_id: UUID
    parent_id: UUID | None
    published: int
    previous_session_id: str | None


@dataclass(frozen=True, slots=True)
class Next:
    """The job that follows in the chain, to be inserted by the commit."""

    id: UUID
    kind: str
    args: dict[str, Any]


# A chain that has begun goes before any other of its lane; else the order of asking.
# Three questions, each a probe of an index: nothing runs, no other has begun, none is earlier.
IN_TURN: LiteralString = """
    not exists (
        select from jobs o
         where o.project_id = q.project_id and o.lane = q.lane and o.state = 'running'
           and o.id <> q.id)
    and not exists (
        select from jobs o
         where o.project_id = q.project_id and o.lane = q.lane and o.finished_at is null
           and (o.started_at is not null or o.id <> o.chain_id) and o.chain_id <> q.chain_id)
    and (q.started_at is not null or q.id <> q.chain_id or not exists (
        select from jobs o
         where o.project_id = q.project_id and o.lane = q.lane and o.finished_at is null
           and o.pos < q.pos and o.chain_id <> q.chain_id
           and (o.state <> 'queued' or o.run_at <= now())))"""  # a date ahead holds no place

# The first that waits in the lane when the chain of `k` has ended, to be published at once.
WAKE: LiteralString = """
    waits as (
        select q.id, q.run_at from k, lateral (
            select q.id, q.run_at from jobs q
             where q.project_id = k.project_id and q.lane = k.lane
               and q.finished_at is null and q.id <> k.id
               and (q.started_at is not null or q.id <> q.chain_id or q.state <> 'queued'
                    or q.run_at <= now())
             order by (q.started_at is not null or q.id <> q.chain_id) desc, q.pos
             limit 1) q
         where %(wake)s and not exists (select from n)
    ), free as (
        select q.id from jobs q join waits using (id)
         where waits.run_at <= now() and q.state in ('queued', 'parked')
           for update of q skip locked
    ), w as (
        update jobs set publish_after = now() + %(publish_after)s, published_at = now(),
               published = published + 1, messages = messages + 1
          from free where jobs.id = free.id
        returning jobs.id, kind, chain_id, parent_id, messages - 1 as published,
                  previous_session_id
    )"""

WANTED: LiteralString = """
    case when j.cancel_requested_at is not null then 'cancel'
         when exists (select from jobs i
                       where i.project_id = j.project_id and i.lane = j.lane
                         and i.finished_at is null and i.id = i.chain_id and i.started_at is null
                         and i.run_at <= now()
                         and i.chain_id <> j.chain_id and i.args ->> 'busy' = 'interrupt')
         then 'interrupted' else 'go on' end"""

# Whether the chain goes on after the job in `f`: not if a cancel or a newer request came in
# time. `said` are the events with their numbers; the next job's is only told if there is one.
GOES_ON: LiteralString = (
    """
    on_we_go as (
        select %(next_id)s::uuid is not null and """
    + WANTED
    + """ = 'go on' as yes from f as j
    ), said as (
        select x.value, row_number() over (order by x.n) as n
          from on_we_go, jsonb_array_elements(%(events)s) with ordinality as x (value, n)
         where on_we_go.yes or %(next_id)s::uuid is null
            or x.value ->> 'job' is distinct from %(next_id)s::uuid::text
    )"""
)

# The chain's next job. `k` is the job's row once all that guards the statement has passed.
FOLLOW: LiteralString = """
    n as (
        insert into jobs (id, chain_id, parent_id, project_id, user_id, lane, pos, kind, args,
                          priority, version_id, previous_session_id, publish_after, published_at,
                          published, messages, announced)
        select %(next_id)s, k.chain_id, k.id, k.project_id, k.user_id, k.lane, k.pos,
               %(next_kind)s, %(next_args)s, k.priority, coalesce(%(version_id)s, k.version_id),
               %(new)s, now() + %(publish_after)s, now(), 1, 1, true
          from k, on_we_go where on_we_go.yes
        returning id, kind, chain_id, parent_id, 0 as published, previous_session_id
    )"""


def follow_params(following: Next | None, publish_after: timedelta) -> dict[str, Any]:
    """Parameters of GOES_ON, FOLLOW and WAKE; `version_id` and `new` are the caller's."""
    return {
        "next_id": following.id if following else None,
        "next_kind": following.kind if following else None,
        "next_args": Jsonb(following.args) if following else None,
        "wake": True,
        "publish_after": publish_after,
    }


def claim(
    conn: Connection, job_id: UUID, *, attempt: UUID, runner: Runner, lease: timedelta
) -> Claimed | None:
    """Begin an attempt: queued or parked → running, with the project's head.

    None when there is nothing to begin: the job has ended, runs, is not due or not
    in turn, its credential is limited, or its project is gone (see `blocked_by`).
    """
    with conn.cursor(row_factory=class_row(Claimed)) as cur:
        try:
            return cur.execute(CLAIM, _claim_params(job_id, attempt, runner, lease)).fetchone()
        except errors.UniqueViolation:
            return None  # another job of the lane began at the same moment


def _claim_params(
    job_id: UUID, attempt: UUID, runner: Runner, lease: timedelta
) -> dict[str, Any]:
    return {
        "id": job_id,
        "attempt": attempt,
        "lease": lease,
        "worker_id": runner.worker_id,
        "host": runner.host,
        "boot": runner.boot,
        "pid": runner.pid,
        "pid_started": runner.pid_started,
        "credential": runner.credential,
        "workspaces": str(settings().workspaces),
    }


CLAIM: LiteralString = (
    """
    with q as (
        select * from jobs
         where id = %(id)s and state in ('queued', 'parked') and run_at <= now()
           for update skip locked
    ), free as (
        select q.* from q
         where """
    + IN_TURN
    + """
           and not exists (select from limits l
                            where l.credential = %(credential)s and l.until > now())
    ), h as (
        update projects p set event_seq = p.event_seq + case when free.announced then 1 else 2 end,
               workspace = coalesce(p.workspace, %(workspaces)s || '/' || p.project_id)
          from free
         where p.project_id = free.project_id and p.user_id = free.user_id
        returning p.project_id, p.event_seq, p.last_ai_session_id, p.workspace, p.fresh_next
    ), j as (
        update jobs set state = 'running', attempt = %(attempt)s, attempts = jobs.attempts + 1,
               lease_until = now() + %(lease)s, announced = true, published_at = null,
               published = 0, host = %(host)s, boot = %(boot)s, pid = %(pid)s,
               pid_started = %(pid_started)s, agent_pid = null, worker_id = %(worker_id)s,
               started_at = coalesce(jobs.started_at, now()), claimed_at = now(),
               credential = null
          from free, h
         where jobs.id = free.id
        returning jobs.*, free.announced as was_announced
    ), e as (
        insert into events (project_id, seq, job_id, type, body)
        select h.project_id, h.event_seq - x.back, j.id, x.type, x.body
          from h, j, lateral (values
            (1, 'job.queued', jsonb_build_object('kind', j.kind, 'chain', j.chain_id)),
            (0, 'job.started', jsonb_build_object('kind', j.kind, 'chain', j.chain_id,
                                                  'attempt', j.attempts, 'host', j.host))
          ) as x (back, type, body)
         where x.back = 0 or not j.was_announced
    )
    select j.id, j.attempt, j.chain_id, j.parent_id, j.project_id, j.user_id, j.lane, j.kind,
           j.args, j.version_id, j.previous_session_id, j.attempts, j.rescues, j.result,
           h.last_ai_session_id as head, h.workspace, h.fresh_next, h.event_seq as seq,
           j.was_announced
      from j, h"""
)


def renew(conn: Connection, job_id: UUID, attempt: UUID, lease: timedelta) -> str | None:
    """Push the lease's end back, and say what is wanted of the runner.

    `go on`, `cancel` or `interrupted` (a newer request wants the lane); None when the
    attempt was replaced: then nothing it does counts any more.
    """
    row = conn.execute(
        """
        update jobs j set lease_until = now() + %(lease)s
         where id = %(id)s and attempt = %(attempt)s and state = 'running'
        returning """
        + WANTED,
        {"id": job_id, "attempt": attempt, "lease": lease},
    ).fetchone()
    return row[0] if row else None


def wanted(conn: Connection, job_id: UUID, attempt: UUID) -> str | None:
    """As `renew`, only looking."""
    row = conn.execute(
        "select "
        + WANTED
        + " from jobs j where id = %s and attempt = %s and state = 'running'",
        (job_id, attempt),
    ).fetchone()
    return row[0] if row else None


def note_agent(conn: Connection, job_id: UUID, attempt: UUID, agent_pid: int) -> None:
    """Write down which process is the agent, for operators."""
    conn.execute(
        "update jobs set agent_pid = %s where id = %s and attempt = %s",
        (agent_pid, job_id, attempt),
    )


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
    ), t as (
        update turns set outcome = 'failed', error_class = %(error_class)s, ended_at = now()
          from f where turns.job_id = f.id and turns.outcome = 'running'
    ), r as (
        update session_resume_attempts a set outcome = 'failed', reason = coalesce(%(error_class)s, %(state)s)
          from f where a.job_id = f.id and a.outcome = 'trying'
    ), h as (
        update projects p set event_seq = p.event_seq + (select count(*) from said)
          from f where p.project_id = f.project_id
        returning p.project_id, p.event_seq
    ),"""
    + events.WRITE_SAID
    + ","
    + FOLLOW
    + ","
    + WAKE
    + """
    select h.event_seq, m.id, m.kind, m.chain_id, m.parent_id, m.published,
           m.previous_session_id
      from d left join h on true
      left join (select * from n union all select * from w) m on true"""
)


def published(rows: list[Any]) -> tuple[int | None, list[Message]] | None:
    """Read what a statement with FOLLOW and WAKE returns: event number, then a message."""
    if not rows:
        return None
    return rows[0][0], [Message(*row[1:]) for row in rows if row[1] is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Why and how long a job goes back to wait."""

    state: str = "queued"  # or parked
    until: datetime | None = None  # an instant; else `delay` from now
    delay: timedelta = timedelta(0)
    counted: bool = True  # whether the attempt is spent
    credential: str | None = None
    error_class: str | None = None
    error: str | None = None


def put_back(
    conn: Connection, job: Claimed, wait: Wait, told: list[Event]
) -> tuple[int | None] | None:
    """Let the job wait for another attempt; the relay publishes it when its time has come.

    None, with nothing written, when the attempt was replaced or a cancel was asked for.
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
        select * from jobs
         where id = %(id)s and attempt = %(attempt)s and state = 'running'
           and cancel_requested_at is null for update
    ), l as (  -- held: whoever clears it does so before us, or sees the job parked
        select until from limits where credential = %(credential)s for share
    ), w as (
        select f.id, x.* from f, lateral (
            select %(state)s::text as state, %(credential)s::text as credential,
                   coalesce(%(until)s, now() + %(delay)s) as run_at
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
    ), t as (
        update turns set outcome = 'failed', error_class = %(error_class)s, ended_at = now()
          from f where turns.job_id = f.id and turns.outcome = 'running'
    ), r as (
        update session_resume_attempts a set outcome = 'failed', reason = coalesce(%(error_class)s, 'put_back')
          from f where a.job_id = f.id and a.outcome = 'trying'
    ), h as (
        update projects p set event_seq = p.event_seq + jsonb_array_length(%(events)s)
          from f where p.project_id = f.project_id
        returning p.project_id, p.event_seq
    ),"""
    + events.WRITE
    + "select h.event_seq from d left join h on true"
)


def fail_orphan(conn: Connection, job_id: UUID) -> bool:
    """Fail a waiting job whose project is gone, or is another user's now. Whether it was one."""
    return (
        conn.execute(
            """
            update jobs q set state = 'failed', finished_at = now(), error_class = 'project_gone',
                   error = 'The project is gone or belongs to another user now.'
             where id = %s and state in ('queued', 'parked') and not exists (
                   select from projects p
                    where p.project_id = q.project_id and p.user_id = q.user_id)
            """,
            (job_id,),
        ).rowcount
        == 1
    )


def interrupted_prompt(conn: Connection, job: Claimed) -> str | None:
    """What the request said whose place this one took."""
    row = conn.execute(
        """
        select args ->> 'prompt' from jobs
         where project_id = %s and lane = %s and state = 'cancelled' and id <> %s
           and error_class = 'replaced_by_request'
           and finished_at >= (select created_at from jobs where id = %s)
         order by finished_at desc, pos desc limit 1
        """,
        (job.project_id, job.lane, job.id, job.id),
    ).fetchone()
    return row[0] if row else None
