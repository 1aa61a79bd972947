"""What an attempt is about to try, written down before the prompt is sent."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from db.jobs import checks
from db.jobs.attempts import Claimed
from db.sessions.costs import COST, WEIGHTS
from db.sessions.tokens import digest

# Failures after which what the turn made is as good as before: it may be gone on from, or
# committed if it had ended (worker/session/recovery.py; sessions.advance). A full disk is none of them:
# what the turn itself has written there may be short.
NOT_ITS_FAULT = (
    "drained",
    "workspace_away",
    "workspace_failed",
    "git_ended",
    "postgres_unreachable",
    "statement_stopped",
)

# Failures that say nothing of the session: what was gone on from may be gone on from again.
NOT_THE_SESSIONS = (
    *NOT_ITS_FAULT,
    "rate_limit",
    "overloaded",
    "unreachable",
    "authentication_failed",
    "billing_error",
)


@dataclass(frozen=True, slots=True)
class Try:
    """One candidate: the session (None: fresh), `trying` or `rejected`, and why."""

    session_id: str | None
    outcome: str
    reason: str | None = None


def begin(  # noqa: PLR0913 - all but two are named, and are columns of one row
    conn: Connection,
    job: Claimed,
    *,
    step: str,
    parent: str | None,
    minted: str,
    tries: list[Try],
    source: str | None = None,
    reason: str | None = None,
    token: str | None = None,
    budget_usd: float | None = None,
) -> bool:
    """Record a run of the agent and every candidate that was looked at for it.

    `token` is what the agent has in place of the model's key, and may spend `budget_usd` with.
    `source` and `reason` are those of the move, where the head is not what it goes on from.
    False, with nothing written, when the attempt was replaced.
    """
    return (
        conn.execute(
            """
            with the_job as (  -- the fence
                select id, project_id from jobs
                 where id = %(job)s and attempt = %(attempt)s and state = 'running'
                   for key share
            ), looked_at as (  -- each candidate, in the order of trying
                insert into session_resume_attempts
                       (job_id, attempt, project_id, session_id, step, outcome, reason)
                select j.id, %(attempt)s, j.project_id, x.value ->> 'session_id', %(step)s,
                       x.value ->> 'outcome', x.value ->> 'reason'
                  from the_job j, jsonb_array_elements(%(tries)s) with ordinality as x (value, n)
                 order by x.n
            )
            insert into turns (job_id, attempt, project_id, step, parent_session_id,
                               minted_session_id, old_session_id, source, reason,
                               token_hash, budget_usd)
            select j.id, %(attempt)s, j.project_id, %(step)s, %(parent)s, %(minted)s, %(old)s,
                   %(source)s, %(reason)s, %(token)s, %(budget)s
              from the_job j
            """,
            {
                "job": job.id,
                "attempt": job.attempt,
                "step": step,
                "parent": parent,
                "minted": minted,
                "old": job.head,
                "source": source,
                "reason": reason,
                "token": digest(token) if token else None,
                "budget": budget_usd,
                "tries": Jsonb([asdict(one) for one in tries]),
            },
        ).rowcount
        == 1
    )


def note_rejected(conn: Connection, job: Claimed, *, step: str, tries: list[Try]) -> None:
    """Record candidates that were looked at for a run which then did not begin."""
    for one in tries:
        if one.outcome == "rejected":
            conn.execute(
                """
                insert into session_resume_attempts
                       (job_id, attempt, project_id, session_id, step, outcome, reason)
                select id, attempt, project_id, %s, %s, %s, %s from jobs
                 where id = %s and attempt = %s  -- not gone meanwhile, with its project
                """,
                (one.session_id, step, one.outcome, one.reason, job.id, job.attempt),
            )


def fail(
    conn: Connection,
    job: Claimed,
    *,
    minted: str,
    error_class: str,
    raw_cost_usd: float | None = None,
    weight: float = 0,
    cli_version: str | None = None,
) -> None:
    """A run of the agent came to nothing: why, the CLI's cumulative cost (USD) and its version,
    if known.

    Where it is not, the cost is an estimate and marked so: `weight` (tokens of plain input)
    at the price of the project's newest turn; null when there is none to go by.
    """
    conn.execute(
        "with"
        + COST
        + """, failed_turn as (
            update turns set outcome = 'failed', error_class = %(class)s, ended_at = now(),
                   cost_usd = cost.usd, cost_estimated = %(raw)s::numeric is null,
                   cli_version = %(cli_version)s
              from cost
             where job_id = %(job)s and minted_session_id = %(minted)s and outcome = 'running'
        )
        update session_resume_attempts set outcome = 'failed', reason = %(class)s
         where job_id = %(job)s and attempt = %(attempt)s and outcome = 'trying'
        """,
        {
            "job": job.id,
            "project": job.project_id,
            "attempt": job.attempt,
            "minted": minted,
            "class": error_class,
            "raw": raw_cost_usd,
            "weight": weight,
            "cli_version": cli_version,
            **WEIGHTS,
        },
    )


def give_up(conn: Connection, job: Claimed, *, minted: str, error_class: str) -> None:
    """A turn that an earlier attempt had ended will not do: it is not to be found again."""
    conn.execute(
        """
        update turns t set outcome = 'failed', error_class = %(class)s
          from jobs j
         where t.job_id = %(job)s and t.minted_session_id = %(minted)s
           and t.outcome <> 'committed'
           and j.id = t.job_id and j.attempt = %(attempt)s and j.state = 'running'
        """,
        {"job": job.id, "attempt": job.attempt, "minted": minted, "class": error_class},
    )


def failures(conn: Connection, job_id: UUID, *, parent: str, classes: set[str]) -> int:
    """How many runs of this job on a fork of `parent` have failed in one of these ways."""
    row = conn.execute(
        """
        select count(*) from turns
         where job_id = %s and parent_session_id = %s and outcome = 'failed'
           and error_class = any(%s)
        """,
        (job_id, parent, sorted(classes)),
    ).fetchone()
    return row[0] if row else 0


def failed_as(conn: Connection, job_id: UUID, error_class: str) -> int:
    """How many runs of this job have failed in this way."""
    row = conn.execute(
        "select count(*) from turns where job_id = %s and error_class = %s",
        (job_id, error_class),
    ).fetchone()
    return row[0] if row else 0


def answer(conn: Connection, job_id: UUID, choice: str) -> bool:
    """Answer a job that waits to be told what to do: about its lost session, or about a version
    that fails its check (db/jobs/checks.py).

    `retry`: look for the session once more; `start_new`: begin a fresh one, the past
    retold. False, with nothing changed, when the job does not wait for such an answer.
    """
    if choice in checks.CHOICES:
        return checks.decide(conn, job_id, choice)
    return (
        conn.execute(
            """
            update jobs j
               set state = 'queued', run_at = now(), publish_after = now(),
                   error_class = null, error = null,
                   args = j.args || jsonb_build_object('answer', %(choice)s::text, 'lost', (
                       select e.body ->> 'code' from events e
                        where e.project_id = j.project_id and e.job_id = j.id
                          and e.type = 'session.resume_failed'
                        order by e.seq desc limit 1))
             where j.id = %(id)s and j.state = 'parked' and j.error_class = 'ask'
               and %(choice)s in ('retry', 'start_new')
            """,
            {"id": job_id, "choice": choice},
        ).rowcount
        == 1
    )


@dataclass(frozen=True, slots=True)
class BegunTurn:
    """A run of the agent that this job began: `age` is the time since it ended, `old` the
    head it was to replace, `source` and `reason` as `begin` was told (none: it forked the head)."""

    step: str
    attempt: UUID
    parent: str | None
    old: str | None
    source: str | None
    reason: str | None
    minted: str
    outcome: str
    error_class: str | None
    age: timedelta


def begun(conn: Connection, job: Claimed) -> list[BegunTurn]:
    """All runs of the agent that the job has begun, the oldest first."""
    with conn.cursor(row_factory=class_row(BegunTurn)) as cur:
        return cur.execute(
            """
            select step, attempt, parent_session_id as parent, minted_session_id as minted,
                   case when source is null and reason is null then parent_session_id
                        else old_session_id end as old, source, reason, outcome, error_class, now() - coalesce(ended_at, now()) as age
              from turns where job_id = %s order by id
            """,
            (job.id,),
        ).fetchall()


def charge(
    conn: Connection, job: Claimed, *, minted: str, raw_cost_usd: float | None, weight: float
) -> None:
    """Write down what a run cost whose worker did not live to say it; as `fail` does."""
    conn.execute(
        "with"
        + COST
        + """
        update turns set cost_usd = cost.usd, cost_estimated = %(raw)s::numeric is null
          from cost
         where job_id = %(job)s and minted_session_id = %(minted)s
           and outcome in ('abandoned', 'failed') and (cost_usd is null or cost_estimated)
        """,
        {
            "job": job.id,
            "project": job.project_id,
            "minted": minted,
            "raw": raw_cost_usd,
            "weight": weight,
            **WEIGHTS,
        },
    )
