"""Attempts: who runs a job.

The lease is the running row: `attempt` is the fence and `lease_until` its end. Every
write for a running job states the fence, and the row decides.

        claim                   sessions.advance, endings.finish
    queued ──────────────► running ──────────────────────────► done failed cancelled
    parked ◄── put_back ──┘      └── rescue ──► queued, or quarantined
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection, errors
from psycopg.rows import class_row

from config.settings import settings
from db.core import events
from db.core.events import Written
from db.jobs.lanes import FIRST, WANTED


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
    told: list[Written]  # the events that the claim has written
    tree: str | None = None  # the commit that the workspace is to be brought to
    tried: bool = True  # whether an attempt before this one has begun a turn
    project_check: list[str] | None = (
        None  # commands; None: it has none of its own, []: it wants none
    )


ALONE = ("jobs_lane", "jobs_last_chance")  # the indexes of which jobs run alone


def claim(
    conn: Connection,
    job_id: UUID,
    *,
    attempt: UUID,
    runner: Runner,
    lease: timedelta,
    limit: int,
    chosen: bool = True,
    again: bool = False,
) -> Claimed | None:
    """Begin an attempt: queued or parked → running, with the head of its lane.

    None when there is nothing to begin: the job has ended, runs, is not due or not first in its
    lane, its user runs as many as may be, its credential is limited, or its project or branch is
    gone (endings.fail_orphan); or the relay has not chosen it (`chosen`) and others go before it;
    or one more death would be the `limit`th and set it aside, and this worker runs such a job
    already (stand_back). Raises what refusals.is_refused when a table does not take the claim.
    `again` says that this very attempt was claimed before and the answer was lost: if it
    was begun, it is what is returned.
    """
    asked = _claim_params(job_id, attempt, runner, lease) | {"limit": limit, "chosen": chosen}
    with _counted(conn, job_id), conn.cursor(row_factory=class_row(Claimed)) as cur:
        try:
            begun = cur.execute(CLAIM, asked).fetchone()
        except errors.UniqueViolation as exc:
            if exc.diag.constraint_name not in ALONE:
                raise
            return None  # another began at the same moment: in its lane, or as in BESIDE
        if begun or not again:
            return begun
        conn.execute("select from jobs where id = %s for share", (job_id,))  # one under way
        return cur.execute(CLAIMED, asked).fetchone()


@contextmanager
def _counted(conn: Connection, job_id: UUID) -> Generator[None]:
    """Where users have slots, a claim waits for another of the same user: a statement counts
    only what was committed before it began."""
    if not settings().user_slots:
        yield
        return
    with conn.transaction():
        conn.execute(
            "select pg_advisory_xact_lock(hashtextextended('slots of ' || user_id, 0))"
            " from jobs where id = %s",
            (job_id,),
        )
        yield


def _claim_params(
    job_id: UUID, attempt: UUID, runner: Runner, lease: timedelta
) -> dict[str, Any]:
    return asdict(runner) | {
        "id": job_id,
        "attempt": attempt,
        "lease": lease,
        "workspaces": str(settings().workspaces),
        "user_slots": settings().user_slots,
    }


# What the job `j` of the project `p` goes on from: the main line's, or its branch's own.
LINE: LiteralString = """
    case when j.lane = 'main' then p.last_ai_session_id
         else (select b.head from branches b
                where b.project_id = j.project_id and b.lane = j.lane) end as head,
    case when j.lane = 'main' then p.workspace
         else %(workspaces)s || '/.branches/' || p.project_id || '/' || j.lane end as workspace,
    case when j.lane = 'main' then p.workspace_tree
         else (select coalesce(b.tree, b.from_tree) from branches b
                where b.project_id = j.project_id and b.lane = j.lane) end as tree,
    p.fresh_next and j.lane = 'main' as fresh_next"""

# One more death would set the job `q` aside, and it is not its first.
LAST_CHANCE: LiteralString = "q.rescues > 0 and q.rescues >= %(limit)s - 1"
# So it would one that this worker runs now: of two that die together nobody knows which was to
# blame.
BESIDE: LiteralString = (
    LAST_CHANCE
    + """ and exists (
        select from jobs o
         where o.worker_id = %(worker_id)s and o.state = 'running' and o.last_chance)"""
)
# The job `j` as its runner sees it, but for its line and what was told.
RUNNER_SEES: LiteralString = """
    j.id, j.attempt, j.chain_id, j.parent_id, j.project_id, j.user_id, j.lane, j.kind,
    j.args, j.version_id, j.previous_session_id, j.attempts, j.rescues, j.result,
    exists (select from turns t where t.job_id = j.id) as tried,
    (select c.commands from project_checks c where c.project_id = j.project_id) as project_check"""

# Only the columns that are read go from part to part: each part that reads a row has it described
# anew each time, and `jobs` is wide.
CLAIM: LiteralString = (
    """
    with due_job as (  -- of two that ask at once, one gets it; baton_races_only asks what we know
        select id, chain_id, project_id, user_id, lane, pos, kind, retry_of, args, priority,
               rescues, started_at, announced, baton_user_slots(%(user_slots)s) as most from jobs
         where id = %(id)s and state in ('queued', 'parked') and run_at <= now()
           and (not args ?| array['race', 'racer'] or set_config('baton.knows', 'races', true) <> '')
           for update skip locked
    ), free_job as (  -- nothing bars it: its place in its lane, its user's slots, its credential
        select q.id, q.project_id, q.user_id, q.lane, q.announced,
               baton_said(q.id, q.chain_id, q.kind, q.retry_of, q.args) as said, """
    + LAST_CHANCE
    + """ as last from due_job q
         where """
    + FIRST
    + """ and not ("""
    + BESIDE
    + """)
           and (%(chosen)s or not baton_waits_ahead(q.user_id, q.priority, q.pos))
           and (q.most = 0 or q.most > (
                select count(*) from jobs r where r.user_id = q.user_id and r.state = 'running'))
           and not exists (select from limits l
                            where l.credential = %(credential)s and l.until > now())
    ), the_project as (  -- still its user's, as its branch is still open; and what it goes on from
        update projects p set event_seq = p.event_seq + case when j.announced then 1
                                                             when j.said is null then 2 else 3 end,
               workspace = coalesce(p.workspace, %(workspaces)s || '/' || p.project_id)
          from free_job j
         where p.project_id = j.project_id and p.user_id = j.user_id
           and (j.lane = 'main' or exists (
               select from branches b where b.project_id = j.project_id and b.lane = j.lane
                                        and b.promoted_at is null))
        returning p.project_id, p.event_seq,"""
    + LINE
    + """
    ), running_job as (
        update jobs set state = 'running', attempt = %(attempt)s, attempts = jobs.attempts + 1,
               lease_until = now() + %(lease)s, announced = true, published_at = null,
               published = 0, ready = false, scheduled = false, host = %(host)s, boot = %(boot)s, pid = %(pid)s,
               pid_started = %(pid_started)s, agent_pid = null, worker_id = %(worker_id)s,
               started_at = coalesce(jobs.started_at, now()), claimed_at = now(),
               credential = null,
               last_chance = j.last
          from free_job j, the_project
         where jobs.id = j.id
        returning jobs.id, jobs.attempt, jobs.chain_id, jobs.parent_id, jobs.project_id,
                  jobs.user_id, jobs.lane, jobs.kind, jobs.args, jobs.version_id,
                  jobs.previous_session_id, jobs.attempts, jobs.rescues, jobs.result, jobs.host,
                  j.announced as was_announced, j.said
    ), written_events as (  -- also that it is queued, if no relay has come to say so
        insert into events (project_id, seq, job_id, type, body)
        select p.project_id, p.event_seq - x.back, j.id, x.type, x.body
          from the_project p, running_job j, lateral (values
            (case when j.said is null then 1 else 2 end, 'job.queued',
             jsonb_build_object('kind', j.kind, 'chain', j.chain_id)),
            (1, 'chat.said', j.said),
            (0, 'job.started', jsonb_build_object('kind', j.kind, 'chain', j.chain_id,
                                                  'attempt', j.attempts, 'host', j.host))
          ) as x (back, type, body)
         where x.body is not null and (x.back = 0 or not j.was_announced)
        returning seq, job_id, type, body
    )
    select """
    + RUNNER_SEES
    + ", p.head, p.workspace, p.fresh_next, p.tree, "
    + events.TOLD
    + " as told from running_job j, the_project p"
)


# An attempt as its claim gave it, whose answer was lost.
CLAIMED: LiteralString = (
    "select "
    + RUNNER_SEES
    + ","
    + LINE
    + """,
           (select jsonb_build_array(to_jsonb(e)) from events e
             where e.project_id = j.project_id and e.job_id = j.id
               and e.type = 'job.started' order by e.seq desc limit 1) as told
      from jobs j join projects p using (project_id)
     where j.id = %(id)s and j.attempt = %(attempt)s and j.state = 'running'"""
)


def stand_back(
    conn: Connection, job_id: UUID, *, worker_id: str, limit: int, pause: timedelta
) -> bool:
    """Look at the job again after `pause`, whatever was published for it, if that is why it was
    not claimed: this worker runs another that one more death would set aside. Whether it is.
    """
    done = conn.execute(
        """
        update jobs q set publish_after = now() + %(pause)s, published = 0, published_at = null
         where id = %(id)s and state in ('queued', 'parked') and run_at <= now() and """
        + BESIDE,
        {"id": job_id, "worker_id": worker_id, "limit": limit, "pause": pause},
    )
    return done.rowcount == 1


def renew(conn: Connection, job_id: UUID, attempt: UUID, lease: timedelta) -> str | None:
    """Push the lease's end back, and say what is wanted of the runner.

    `go on`, `cancel` or `replaced` (a newer request wants the lane); None when another
    attempt has the job: then nothing it does counts any more.
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


def replaced_prompt(conn: Connection, job: Claimed) -> str | None:
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
