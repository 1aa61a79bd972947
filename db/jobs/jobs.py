"""Jobs, as those see them who ask: enqueue, look up, cancel, try again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import NAMESPACE_OID, UUID, uuid4, uuid5

from psycopg import Connection
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from db.core import events

NEVER = datetime.fromisoformat("9999-01-01T00:00:00+00:00")  # parked until it is cleared


PATIENCE = "5s"  # for a transaction that holds what is to be cancelled


@dataclass(frozen=True, slots=True)
class Job:
    """One row of `jobs`, without what only its runner needs."""

    id: UUID
    chain_id: UUID
    parent_id: UUID | None
    retry_of: UUID | None
    project_id: str
    user_id: str
    lane: str
    kind: str
    args: dict[str, Any]
    key: str | None
    priority: int
    version_id: str | None
    previous_session_id: str | None
    state: str
    attempts: int
    rescues: int
    run_at: datetime
    host: str | None
    pid: int | None
    agent_pid: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error_class: str | None
    error: str | None
    result: dict[str, Any] | None

    @property
    def ended(self) -> bool:
        """Whether the job is in one of its final states."""
        return self.finished_at is not None


COLUMNS: LiteralString = """
    id, chain_id, parent_id, retry_of, project_id, user_id, lane, kind, args, key, priority,
    version_id, previous_session_id, state, attempts, rescues, run_at, host, pid, agent_pid,
    created_at, started_at, finished_at, error_class, error, result"""

# What baton_enqueue is given: the same text for a plain and an async connection.
GIVEN: LiteralString = """
        kind => %(kind)s, project => %(project)s, user_id => %(user)s, prompt => %(prompt)s,
        version => %(version)s, key => %(key)s, busy => %(busy)s, priority => %(priority)s,
        run_at => %(run_at)s, previous_session_id => %(previous_session_id)s,
        error => %(error)s, options => %(options)s, id => %(id)s, prompt_limit => %(prompt_limit)s"""
ENQUEUE: LiteralString = "select baton_enqueue(" + GIVEN + ")"
ENQUEUE_AS_OPERATOR: LiteralString = "select baton_enqueue(" + GIVEN + ", operator => true)"
GET: LiteralString = "select " + COLUMNS + " from jobs where id = %s"


def get(conn: Connection, job_id: UUID) -> Job | None:
    """The job, or None if there is none of that id."""
    with conn.cursor(row_factory=class_row(Job)) as cur:
        return cur.execute(GET, (job_id,)).fetchone()


def chain(conn: Connection, chain_id: UUID) -> list[Job]:
    """The jobs of one request in order; the first one's id names the chain."""
    with conn.cursor(row_factory=class_row(Job)) as cur:
        return cur.execute(
            "select " + COLUMNS + " from jobs where chain_id = %s order by created_at, id",
            (chain_id,),
        ).fetchall()


def turns(conn: Connection, job_id: UUID) -> list[dict[str, Any]]:
    """Each run of the agent for this job: step, minted and observed session, outcome."""
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(
            """
            select step, attempt, parent_session_id, minted_session_id, observed_session_id,
                   relation, outcome, error_class, cost_usd, cost_estimated, budget_usd, spent_usd,
                   cli_version,
                   started_at, ended_at
              from turns where job_id = %s order by id
            """,
            (job_id,),
        ).fetchall()


def resume_attempts(conn: Connection, job_id: UUID) -> list[dict[str, Any]]:
    """Each session that this job looked at, with what came of it and why."""
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(
            """
            select step, attempt, session_id, outcome, reason, at
              from session_resume_attempts where job_id = %s order by id
            """,
            (job_id,),
        ).fetchall()


def cancel(conn: Connection, job_id: UUID, *, patience: str = PATIENCE) -> Job | None:
    """Cancel the job and what follows in its chain; None if there is no such job. Of one of a race
    that one alone: the others race on. Of the race's own job all of them.

    Whoever holds its rows is waited for as long as `patience`, in Postgres' units; then
    LockNotAvailable is raised.

    A waiting one ends here and now; a running one is told, and stops within seconds.
    A job that has ended stays as it is; a commit that came first stands, and what it
    inserted is cancelled.
    """
    with conn.transaction():
        conn.execute("select set_config('lock_timeout', %s, true)", (patience,))
        _hold_chain(conn, job_id)
        conn.execute(CANCEL, {"id": job_id})
    return get(conn, job_id)


def _hold_chain(conn: Connection, job_id: UUID) -> None:
    """Lock what is open of the job's chain: then no commit can insert another."""
    of_chain: LiteralString = """
        select id from jobs where finished_at is null
           and chain_id = (select chain_id from jobs where id = %s) order by id"""
    while conn.execute(of_chain + " for update", (job_id,)).fetchall() != (
        conn.execute(of_chain, (job_id,)).fetchall()  # a lock may have waited for a commit
    ):
        pass


# What is open of `rest_of_chain` ends: needs the rows, locked.
END_OPEN: LiteralString = (
    """
    ended_here as (  -- what waits ends here
        update jobs set state = 'cancelled', finished_at = now(), untold = jobs.args ? 'racer',
               error_class = 'cancelled', error = 'Cancelled on request.'
          from rest_of_chain r where jobs.id = r.id and r.state in ('queued', 'parked')
        returning jobs.*
    ), ended_job as (  -- one a project is told here; the relay tells of those of a race
        select * from ended_here where not untold
    ), stopped_job as (  -- what runs ends as soon as its worker has seen it
        update jobs set cancel_requested_at = coalesce(jobs.cancel_requested_at, now())
          from rest_of_chain r where jobs.id = r.id and r.state = 'running'
    ), the_project as (
        update projects p set event_seq = p.event_seq + """
    + events.OF_END
    + """ from ended_job j
         where p.project_id = j.project_id
        returning p.project_id, p.event_seq
    ),"""
    + events.TELL_END
    + "select from ended_job"
)

CANCEL: LiteralString = (
    """
    with rest_of_chain as (
        select j.* from jobs a
          join jobs j on j.chain_id = a.chain_id
                     and (j.id = a.id or j.created_at >= a.created_at and not a.args ? 'racer')
         where a.id = %(id)s and j.finished_at is null
           for update of j
    ),"""
    + END_OPEN
)


def again(
    conn: Connection,
    job_id: UUID,
    *,
    fresh: bool = False,
    user: str | None = None,
    key: str | None = None,
) -> Job | None:
    """Ask for a finished job once more: a new job that names the old one.

    None if there is no such job (with `user`: of that user's) or it has not ended. The new one
    begins a chain of its own and is held to what every request is; what was asked for under a
    key keeps its key at the old job. Asked again under the same `key` it is the same job. A build that has made its version makes a new one. One of a
    branch that was promoted goes to the main line; of one that was dropped it is refused.
    """
    row = conn.execute(
        "select baton_again(%s, %s, %s, %s, %s)",
        (job_id, uuid4(), Jsonb({"fresh": True} if fresh else {}), user, key),
    ).fetchone()
    return get(conn, row[0]) if row and row[0] else None


def ended(conn: Connection, chain_id: UUID) -> bool:
    """Whether nothing of the chain is left to do. A commit inserts the next job, so no gap."""
    row = conn.execute(
        "select not exists (select from jobs where chain_id = %s and finished_at is null)",
        (chain_id,),
    ).fetchone()
    return bool(row and row[0])


def known(conn: Connection, ids: list[UUID]) -> set[UUID]:
    """Those of the ids that are jobs."""
    return {row[0] for row in conn.execute("select id from jobs where id = any(%s)", (ids,))}


def id_of_task(task_id: str) -> UUID | None:
    """The job of a Celery task: `<job id>` or `<job id>.<n>`; a stranger's id is hashed to one."""
    text = task_id.partition(".")[0]
    try:
        return UUID(text)
    except ValueError:
        return uuid5(NAMESPACE_OID, task_id) if task_id else None
