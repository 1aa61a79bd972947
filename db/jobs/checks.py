"""Checks: which commands a build has to pass, what each came to, and where a job stands with them.

A round is one time through the commands: the first after the request's own turn, the next after each
repair. A command that came to an end is a row, written under the attempt's fence with its event; so
whoever goes on with the job runs again what has none, and nothing else.
"""

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from db.core import events
from db.core.events import Event, Written
from db.jobs.attempts import Claimed

CHOICES = ("keep", "rewind", "repair")  # of a version that fails its check


def choices(args: dict[str, Any]) -> list[str]:
    """What a job of these arguments offers that asks what becomes of its version: of a race nobody's
    session is the request's, so none is there to repair."""
    return [one for one in CHOICES if one != "repair" or "race" not in args]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command came to. Neither `exit_status` nor `signal`: it was ended for the `reason`."""

    round: int
    number: int
    command: str
    outcome: str  # passed, failed
    exit_status: int | None
    signal: int | None
    reason: str | None
    duration_ms: int
    output_head: str
    output_tail: str
    output_bytes: int
    failure: str | None
    tree: str | None
    changed: list[str]

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


@dataclass(frozen=True, slots=True)
class Step:
    """A turn of the job that was committed: the session that it made, and the head before."""

    step: str
    session: str
    old: str | None


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a job stands with its check."""

    steps: list[Step]
    results: list[Result]
    result: dict[str, Any]
    spent_usd: Decimal

    @property
    def repairs(self) -> int:
        """How many repairs are committed."""
        return sum(one.step.startswith("repair") for one in self.steps)

    @property
    def newest(self) -> str | None:
        """The session of the job's newest turn."""
        return self.steps[-1].session if self.steps else None

    @property
    def before(self) -> str | None:
        """The head before the job's first turn."""
        return self.steps[0].old if self.steps else None

    def of_round(self, number: int) -> list[Result]:
        return [one for one in self.results if one.round == number]

    def failed_in(self, number: int) -> Result | None:
        """The command that failed in this round."""
        return next((one for one in self.of_round(number) if not one.passed), None)


def commands_of(conn: Connection, project_id: str) -> list[str] | None:
    """The check of a project's own; None if it has none, an empty list if it is to have none."""
    row = conn.execute(
        "select commands from project_checks where project_id = %s", (project_id,)
    ).fetchone()
    return row[0] if row else None


def set_commands(conn: Connection, project_id: str, commands: list[str] | None) -> None:
    """Give the project a check of its own; None takes it away. Raises an error of class BA for
    what is no shell line."""
    given = None if commands is None else Jsonb(commands)
    conn.execute("select baton_set_check(%s, %s)", (project_id, given))


def stand(conn: Connection, job: Claimed) -> Stand:
    """Where the job stands."""
    with conn.cursor(row_factory=class_row(Step)) as cur:
        steps = cur.execute(
            """
            select step, coalesce(observed_session_id, minted_session_id) as session,
                   old_session_id as old
              from turns where job_id = %s and outcome = 'committed' order by id
            """,
            (job.id,),
        ).fetchall()
    with conn.cursor(row_factory=class_row(Result)) as cur:
        results = cur.execute(RESULTS, (job.id,)).fetchall()
    row = conn.execute(
        """
        select coalesce(result, '{}'),
               (select coalesce(sum(cost_usd), 0) from turns where job_id = jobs.id)
          from jobs where id = %s
        """,
        (job.id,),
    ).fetchone()
    result, spent = row or ({}, Decimal(0))
    return Stand(steps, results, result, spent)


RESULTS: LiteralString = """
    select round, number, command, outcome, exit_status, signal, reason, duration_ms, output_head,
           output_tail, output_bytes, failure, tree, changed
      from checks where job_id = %s order by round, number"""


def record(
    conn: Connection, job: Claimed, found: Result, told: Event, *, status: str | None
) -> list[Written] | None:
    """Write down what a command came to, with its event; the version has that `status` then
    (None: it has the one that it had).

    Returns what was told; None, with nothing written, when the attempt was replaced.
    """
    row = conn.execute(
        RECORD,
        asdict(found)
        | {
            "id": job.id,
            "attempt": job.attempt,
            "changed": Jsonb(found.changed),
            "status": status,
            "events": events.as_param([told]),
        },
    ).fetchone()
    return (row[0] or []) if row else None


RECORD: LiteralString = (
    """
    with the_job as (  -- the fence
        select id, project_id, version_id, attempt from jobs
         where id = %(id)s and attempt = %(attempt)s and state = 'running' for key share
    ), new_check as (
        insert into checks (job_id, attempt, project_id, version_id, round, number, command,
                            outcome, exit_status, signal, reason, duration_ms, output_head,
                            output_tail, output_bytes, failure, tree, changed)
        select j.id, j.attempt, j.project_id, j.version_id, %(round)s, %(number)s, %(command)s,
               %(outcome)s, %(exit_status)s, %(signal)s, %(reason)s, %(duration_ms)s,
               %(output_head)s, %(output_tail)s, %(output_bytes)s, %(failure)s, %(tree)s,
               %(changed)s
          from the_job j
            on conflict (job_id, round, number) do nothing
        returning project_id, version_id
    ), the_version as (  -- a branch has none
        update project_versions v set check_status = %(status)s
          from new_check c
         where v.project_id = c.project_id and v.version_id = c.version_id
           and %(status)s::text is not null
    ),"""
    + events.ALL_GIVEN
    + """,
    the_project as (
        update projects p set event_seq = p.event_seq + (select count(*) from to_tell)
          from new_check c where p.project_id = c.project_id
        returning p.project_id, p.event_seq
    ),"""
    + events.WRITE
    + "select "
    + events.TOLD
    + " from the_job"
)


def of_job(conn: Connection, job_id: UUID) -> list[dict[str, Any]]:
    """Each command that was run for the job, in order."""
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(OF_JOB, (job_id,)).fetchall()


OF_JOB: LiteralString = """
    select round, number, command, outcome, exit_status, signal, reason, duration_ms, output_head,
           output_tail, output_bytes, tree, changed, at
      from checks where job_id = %s order by round, number"""


def of_sessions(conn: Connection, project_id: str) -> dict[str, list[dict[str, Any]]]:
    """What was run on the files that each session of the project has made, in order."""
    with conn.cursor(row_factory=dict_row) as cur:
        rows = cur.execute(OF_SESSIONS, (project_id,)).fetchall()
    found = dict[str, list[dict[str, Any]]]()
    for row in rows:
        found.setdefault(row.pop("session"), []).append(row)
    return found


OF_SESSIONS: LiteralString = """
    select coalesce(t.observed_session_id, t.minted_session_id)::text as session, c.command, c.outcome,
           c.exit_status, c.signal, c.reason, c.duration_ms
      from checks c
      join turns t on t.job_id = c.job_id and t.outcome = 'committed'
                  and t.step = case c.round when 0 then 'build' else 'repair:' || c.round end
     where c.project_id = %s order by c.job_id, c.round, c.number"""


def decide(conn: Connection, job_id: UUID, choice: str) -> bool:
    """Answer a job that asks what is to become of a version that fails its check: `keep`,
    `rewind` or `repair`. False, with nothing changed, when it does not ask that."""
    return (
        conn.execute(
            """
            update jobs set state = 'queued', run_at = now(), publish_after = now(),
                   error_class = null, error = null,
                   args = (args - '{check_answer,repair_at}'::text[]) || case %(choice)s::text
                       when 'repair' then jsonb_build_object('repair_at', (
                           select count(*) from turns t
                            where t.job_id = jobs.id and t.outcome = 'committed'
                              and t.step like 'repair%%'))
                       else jsonb_build_object('check_answer', %(choice)s::text) end
             where id = %(id)s and state = 'parked' and error_class = 'check_undecided'
               and %(choice)s = any(%(choices)s)
               and not (args ? 'race' and %(choice)s = 'repair')  -- nobody's session is the race's
            """,
            {"id": job_id, "choice": choice, "choices": list(CHOICES)},
        ).rowcount
        == 1
    )
