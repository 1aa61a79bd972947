"""What an attempt is about to try, written down before the prompt is sent (R114, R148)."""

from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from db.attempts import Claimed


@dataclass(frozen=True, slots=True)
class Try:
    """One candidate: the session (None: fresh), `trying` or `rejected`, and why."""

    session_id: str | None
    outcome: str
    reason: str | None = None


def begin(
    conn: Connection,
    job: Claimed,
    *,
    step: str,
    parent: str | None,
    minted: str,
    tries: list[Try],
) -> bool:
    """Record a run of the agent and every candidate that was looked at for it.

    False, with nothing written, when the attempt was replaced.
    """
    return (
        conn.execute(
            """
            with f as (
                select id from jobs
                 where id = %(job)s and attempt = %(attempt)s and state = 'running'
                   for key share
            ), tries as (
                insert into session_resume_attempts
                       (job_id, attempt, project_id, session_id, step, outcome, reason)
                select f.id, %(attempt)s, %(project)s, x.value ->> 'session', %(step)s,
                       x.value ->> 'outcome', x.value ->> 'reason'
                  from f, jsonb_array_elements(%(tries)s) with ordinality as x (value, n)
                 order by x.n
            )
            insert into turns (job_id, attempt, project_id, step, parent_session_id,
                               minted_session_id)
            select f.id, %(attempt)s, %(project)s, %(step)s, %(parent)s, %(minted)s from f
            """,
            {
                "job": job.id,
                "attempt": job.attempt,
                "project": job.project_id,
                "step": step,
                "parent": parent,
                "minted": minted,
                "tries": Jsonb(
                    [
                        {"session": t.session_id, "outcome": t.outcome, "reason": t.reason}
                        for t in tries
                    ]
                ),
            },
        ).rowcount
        == 1
    )


def fail(
    conn: Connection,
    job: Claimed,
    *,
    minted: str,
    error_class: str,
    raw_cost_usd: float | None = None,
) -> None:
    """A run of the agent came to nothing: why, and the CLI's cumulative cost (USD), if known."""
    conn.execute(
        """
        with parent as (
            select m.raw_cost_usd from turns t
              join project_ai_session_metrics m on m.session_id = t.parent_session_id
             where t.job_id = %(job)s and t.minted_session_id = %(minted)s limit 1
        ), cost as (
            select case when p.raw_cost_usd <= %(raw)s::numeric
                        then %(raw)s::numeric - p.raw_cost_usd else %(raw)s::numeric end as usd
              from (select 1) one left join parent p on true
        ), t as (
            update turns set outcome = 'failed', error_class = %(class)s, ended_at = now(),
                   cost_usd = cost.usd
              from cost
             where job_id = %(job)s and minted_session_id = %(minted)s and outcome = 'running'
        )
        update session_resume_attempts set outcome = 'failed', reason = %(class)s
         where job_id = %(job)s and attempt = %(attempt)s and outcome = 'trying'
        """,
        {
            "job": job.id,
            "attempt": job.attempt,
            "minted": minted,
            "class": error_class,
            "raw": raw_cost_usd,
        },
    )


def failures(conn: Connection, job_id: UUID, *, parent: str) -> int:
    """How many runs of this job on a fork of `parent` have failed."""
    row = conn.execute(
        """
        select count(*) from turns
         where job_id = %s and parent_session_id = %s and outcome = 'failed'
        """,
        (job_id, parent),
    ).fetchone()
    return row[0] if row else 0


def steps_done(conn: Connection, job: Claimed) -> set[str]:
    """Steps of the job that are committed: they are never run again."""
    rows = conn.execute(
        "select step from turns where job_id = %s and outcome = 'committed'", (job.id,)
    )
    return {step for (step,) in rows}
