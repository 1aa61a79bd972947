"""The commit of a turn: its session becomes the head, with all that belongs to it.

One statement, so that no crash point lies between its parts: the head by compare-and-swap under
the attempt's fence (db/projects/heads.py), the version, the session's figures, the chat, the events and
the chain's next job (db/jobs/lanes.py).
"""

import json
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any, LiteralString

from psycopg import Connection, errors
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int8

from db.core import events
from db.core.events import Event, Written
from db.jobs import lanes
from db.jobs.attempts import Claimed
from db.jobs.lanes import Message, Next
from db.projects import heads
from db.projects.heads import Move
from db.sessions import costs, turns

# As a bigint whatever their size: by the types of its parameters a statement is planned, and a
# number has one of three.
COUNTS = (
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens"),
    *("context_tokens", "duration_ms", "num_turns"),
)
ONCE = "turns_step_once"  # the index by which a step of a job is committed once


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance(Move):
    """What a whole turn changes. Token counts are of this turn; costs in USD."""

    step: str
    minted: str
    relation: str
    new_version: bool = False  # whether the version is made by this turn
    files: list[str] | None = None  # for digests the names of the workspace's files, as `tree`
    documentation: str | None = None
    final: bool = True  # whether the job ends with this step
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    chat: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    chat_plan: bool = False
    summary: str | None = None  # of a compaction
    compacted: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    context_tokens: int = 0
    raw_cost_usd: float | None = None
    weight: float = 0.0  # what was used and is not in `raw_cost_usd` (db/sessions/costs.py)
    duration_ms: int | None = None
    num_turns: int | None = None
    model: str | None = None
    cli_version: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """What a commit did: the session's own cost, what it told, what to publish.

    After a lost answer nothing is left to tell: watchers refill from the log, and the relay
    publishes.
    """

    cost_usd: float
    told: list[Written]
    messages: list[Message]
    files_created: list[str] = field(default_factory=list[str])  # by the chain's build


def advance(
    conn: Connection,
    job: Claimed,
    to: Advance,
    *,
    told: list[Event],
    following: Next | None,
    publish_after: timedelta,
) -> Moved | None:
    """Move the head of the job's lane to a new session and record all that belongs to it.

    None, with nothing written, when the head is no longer `to.old`, the attempt was replaced
    or its lease has run out, or the turn was not begun or is recorded already. Raises what
    refusals.is_refused, with nothing written, when a table takes no such row.
    """
    params = (
        {one.name: getattr(to, one.name) for one in fields(to)}
        | {name: Int8(count) for name in COUNTS if (count := getattr(to, name)) is not None}
        | {
            "id": job.id,
            "attempt": job.attempt,
            "project": job.project_id,
            "was_fresh": job.fresh_next,
            **costs.WEIGHTS,
            "no_fault": list(turns.NOT_ITS_FAULT),
            "result": Jsonb(to.result),
            "files": None if to.files is None else json.dumps(to.files),
            "chat": Jsonb([{"role": role, "content": text} for role, text in to.chat]),
            "events": events.as_param(told),
            **lanes.follow_params(following, publish_after),
        }
    )
    if not to.final:  # the job goes on: nothing follows yet
        params |= {"next_id": None}
    try:
        rows = conn.execute(ADVANCE, params).fetchall()
    except errors.UniqueViolation as exc:
        if exc.diag.constraint_name != ONCE:
            raise
        return None  # the step was recorded just now
    if not rows:
        return None
    cost, written, created, *_ = rows[0]
    sent = lanes.messages([row[3:] for row in rows])
    return Moved(float(cost), written, sent, created or [])


def committed(conn: Connection, job: Claimed, minted: str) -> Moved | None:
    """What a commit of this turn has done whose answer was lost; None if it did nothing.

    One that is still under way is waited for: it holds the job's row.
    """
    conn.execute("select from jobs where id = %s for share", (job.id,))
    row = conn.execute(
        """
        select t.cost_usd, j.result -> 'files_created' from turns t, jobs j
         where t.job_id = %s and t.minted_session_id = %s and t.outcome = 'committed'
           and j.id = %s
        """,
        (job.id, minted, job.chain_id),
    ).fetchone()
    return Moved(float(row[0]), [], [], row[1] or []) if row else None


# A row is looked up by a parameter where there is one, not by what another part has found: the plan is
# made once, perhaps of an empty ledger, to which reading a whole index and joining costs as little.
ADVANCE: LiteralString = (
    """
    with the_job as (  -- fence and lease: whoever lost either finds nothing to commit
        select """
    + lanes.OF_JOB
    + """ from jobs
         where id = %(id)s and attempt = %(attempt)s and state = 'running'
           and lease_until > now() for update
    ), the_turn as (  -- once: a step that is recorded is not recorded again
        select t.id from the_job, turns t
         where t.job_id = %(id)s and t.minted_session_id = %(minted)s
           and (t.outcome in ('running', 'abandoned')
                -- whole, and kept from its commit by no fault of its own
                or t.outcome = 'failed' and t.error_class = any(%(no_fault)s))
           and not exists (select from turns c where c.job_id = %(id)s and c.step = t.step
                                                 and c.outcome = 'committed')
           for update of t
    ),"""
    + lanes.GOES_ON
    + """,
    mover as (  -- the line whose head moves
        select j.project_id, j.lane from the_job j, the_turn
    ),"""
    + heads.MOVE
    + """,
    -- From here on everything hangs on `the_project`: it has a row only if the head has moved.
    done_job as (
        update jobs set result = coalesce(jobs.result, '{}') || %(result)s,
               state = case when %(final)s then 'done' else jobs.state end,
               finished_at = case when %(final)s then now() end,
               lease_until = case when %(final)s then null else jobs.lease_until end,
               version_id = coalesce(jobs.version_id, %(version_id)s),
               error_class = null, error = null
          from the_project where jobs.id = %(id)s
    ), known_version as (  -- the product may have made its row before
        update project_versions v
           set ai_session_id = %(new)s, ai_session_last_used_at = now(),
               ai_session_created_at = coalesce(v.ai_session_created_at, now()),
               tree = coalesce(%(tree)s, v.tree)
          from the_project p
         where v.project_id = p.project_id and v.version_id = %(version_id)s
        returning v.version_id
    ), new_version as (
        insert into project_versions (project_id, version_id, tree, ai_session_id,
                                      ai_session_created_at, ai_session_last_used_at)
        select p.project_id, %(version_id)s, %(tree)s, %(new)s, now(), now()
          from the_project p where %(new_version)s and not exists (select from known_version)
    ), parent as (  -- the CLI's figures go on from its
        select raw_cost_usd, turns_since_start from project_ai_session_metrics
         where session_id = %(parent)s limit 1
    ),"""
    + costs.PRICE
    + """,
    figures as (  -- the parent's unknown figure is in ours: then the cost is a guess
        select coalesce(%(raw_cost_usd)s::numeric
                        - case when parent.raw_cost_usd <= %(raw_cost_usd)s
                               then parent.raw_cost_usd else 0 end, 0)
               + case when %(weight)s::numeric > 0
                      then coalesce(%(weight)s::numeric * (select usd from price), 0) else 0 end
               as cost,
               %(raw_cost_usd)s::numeric is null or %(weight)s::numeric > 0
                   or (%(parent)s::text is not null and parent.raw_cost_usd is null) as estimated,
               case when %(compacted)s then 0 else coalesce(parent.turns_since_start, 0) + 1
               end as turns_since_start
          from (select 1) one left join parent on true
    ), known_session as (  -- the same id again: it is touched, and what the turn used is added
        update project_ai_session_metrics m
           set last_used_at = now(), status = 'active', stale_at = null,
               version_id = coalesce(%(version_id)s, m.version_id),
               input_tokens = m.input_tokens + %(input_tokens)s,
               output_tokens = m.output_tokens + %(output_tokens)s,
               cache_read_tokens = m.cache_read_tokens + %(cache_read_tokens)s,
               cache_creation_tokens = m.cache_creation_tokens + %(cache_creation_tokens)s,
               context_tokens = %(context_tokens)s, cost_usd = m.cost_usd + figures.cost,
               cost_estimated = m.cost_estimated or figures.estimated,
               raw_cost_usd = coalesce(%(raw_cost_usd)s, m.raw_cost_usd),
               duration_ms = coalesce(m.duration_ms, 0) + coalesce(%(duration_ms)s, 0),
               num_turns = coalesce(m.num_turns, 0) + coalesce(%(num_turns)s, 0),
               turns_since_start = figures.turns_since_start,
               summary = coalesce(%(summary)s, m.summary), tree = p.tree,
               digest_files = coalesce(%(files)s, m.digest_files),
               digest_documentation = coalesce(%(documentation)s, m.digest_documentation)
          from the_project p, figures
         where m.session_id = %(new)s and m.project_id = p.project_id
        returning session_id
    ), new_session as (
        insert into project_ai_session_metrics
               (session_id, project_id, user_id, version_id, parent_session_id, job_id, step,
                input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
                context_tokens, cost_usd, cost_estimated, raw_cost_usd, duration_ms, num_turns,
                turns_since_start, model, cli_version, resumed, summary, lane, old_session_id, tree,
                digest_files, digest_documentation)
        select %(new)s, j.project_id, j.user_id, %(version_id)s, %(parent)s, j.id, %(step)s,
               %(input_tokens)s, %(output_tokens)s, %(cache_read_tokens)s,
               %(cache_creation_tokens)s, %(context_tokens)s, figures.cost, figures.estimated,
               %(raw_cost_usd)s, %(duration_ms)s, %(num_turns)s, figures.turns_since_start,
               %(model)s, %(cli_version)s, %(parent)s::text is not null, %(summary)s, j.lane, %(old)s,
               p.tree, %(files)s, %(documentation)s
          from the_job j, the_project p, figures where not exists (select from known_session)
    ), chat as (  -- what was said, in the order of saying
        insert into project_chat_log_minimal
               (project_id, session_id, ai_session_id, role, content, job_id, created_at)
        select p.project_id, %(new)s, %(new)s, x.value ->> 'role', x.value ->> 'content', %(id)s,
               now() + x.n * interval '1 microsecond'
          from the_project p, jsonb_array_elements(%(chat)s) with ordinality as x (value, n)
         order by x.n
    ), chat_plan as (
        insert into chat_plan_sessions (session_id, project_id, user_id, job_id)
        select %(new)s, j.project_id, j.user_id, j.id from the_job j, the_project
         where %(chat_plan)s
            on conflict do nothing
    ), committed_turn as (
        update turns set outcome = 'committed', observed_session_id = %(new)s,
               relation = %(relation)s, cost_usd = figures.cost,
               cost_estimated = figures.estimated, error_class = null,
               cli_version = %(cli_version)s, ended_at = now()
          from the_project, the_turn, figures where turns.id = the_turn.id
    ), tried_candidate as (  -- what the turn began from did resume, or the agent began anew
        update session_resume_attempts a
           set outcome = case when a.session_id is null then 'fresh'
                              when %(relation)s = 'reset' then 'failed' else 'resumed' end,
               reason = case when a.session_id is not null and %(relation)s = 'reset'
                             then 'agent_reset' else a.reason end
          from the_project
         where a.job_id = %(id)s and a.attempt = %(attempt)s and a.outcome = 'trying'
    ),"""
    + events.WRITE
    + """,
    the_former as (
        select j.* from the_job j, the_project
    ),"""
    + lanes.FOLLOW
    + "select figures.cost, "
    + events.TOLD
    + """,
       case when %(id)s = j.chain_id then %(result)s else (
           select c.result from jobs c where c.id = j.chain_id) end -> 'files_created', """
    + lanes.FOLLOWING
    + """
      from the_job j, the_project, figures left join next_job on %(final)s"""
)
