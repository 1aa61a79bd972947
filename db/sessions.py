"""The chain of agent sessions behind each project: how its head moves.

`advance` is the one way a head moves: by compare-and-swap, under the attempt's fence,
with the version, the transition, the session's figures, the chat, the event and the
chain's next job in the same statement. So no crash point lies between them.
"""

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any, LiteralString

from psycopg import Connection, errors
from psycopg.types.json import Jsonb

from db import costs, events, lanes, turns
from db.attempts import Claimed
from db.events import Event
from db.lanes import Message, Next

ONCE = "turns_step_once"  # the index by which a step of a job is committed once


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """What a whole turn changes. Token counts are of this turn; costs in USD."""

    step: str
    old: str | None  # the head that is replaced
    new: str
    parent: str | None  # the session that was forked; None: fresh
    minted: str
    relation: str
    source: str
    reason: str | None = None
    version_id: str | None = None
    new_version: bool = False  # whether the version is made by this turn
    tree: str | None = None  # the workspace's commit, if the turn may have changed it
    files: list[str] | None = None  # and for digests the names of its files, as `tree`
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
    weight: float = 0.0  # what was used and is not in `raw_cost_usd` (db/costs.py)
    duration_ms: int | None = None
    num_turns: int | None = None
    model: str | None = None
    cli_version: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """What a commit did: the newest event's number, the session's own cost, what to publish.

    After a lost answer the number is not known (None), and publishing is left to the relay.
    """

    seq: int | None
    cost_usd: float
    messages: list[Message]


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
    or its lease has run out, or the turn was not begun or is recorded already. Raises one of
    refusals.FOR_GOOD, with nothing written, when a table takes no such row.
    """
    params = asdict(to) | {
        "id": job.id,
        "attempt": job.attempt,
        "project": job.project_id,
        "was_fresh": job.fresh_next,
        **costs.WEIGHTS,
        "no_fault": list(turns.NOT_ITS_FAULT),
        "result": Jsonb(to.result),
        "files": None if to.files is None else Jsonb(to.files),
        "chat": Jsonb([{"role": role, "content": text} for role, text in to.chat]),
        "events": events.as_param(told),
        **lanes.follow_params(following, publish_after),
    }
    if not to.final:  # the job goes on: nothing follows yet
        params |= {"next_id": None}
    try:
        rows = conn.execute(ADVANCE, params).fetchall()
    except errors.UniqueViolation as exc:
        if exc.diag.constraint_name != ONCE:
            raise
        return None  # the step was recorded just now
    found = lanes.published([row[1:] for row in rows])
    if found is None or found[0] is None:
        return None
    return Moved(seq=found[0], cost_usd=float(rows[0][0]), messages=found[1])


def settled(conn: Connection, job: Claimed, minted: str) -> Moved | None:
    """What a commit of this turn has done whose answer was lost; None if it did nothing.

    One that is still under way is waited for: it holds the job's row.
    """
    conn.execute("select from jobs where id = %s for share", (job.id,))
    row = conn.execute(
        """
        select cost_usd from turns
         where job_id = %s and minted_session_id = %s and outcome = 'committed'
        """,
        (job.id, minted),
    ).fetchone()
    return Moved(seq=None, cost_usd=float(row[0]), messages=[]) if row else None


ADVANCE: LiteralString = (
    """
    with f as (
        select * from jobs
         where id = %(id)s and attempt = %(attempt)s and state = 'running'
           and lease_until > now() for update
    ), u as (  -- the turn, once: a step that is recorded is not recorded again
        select t.id from f join turns t on t.job_id = f.id
         where t.minted_session_id = %(minted)s
           and (t.outcome in ('running', 'abandoned')
                -- whole, and kept from its commit by no fault of its own
                or t.outcome = 'failed' and t.error_class = any(%(no_fault)s))
           and not exists (select from turns c where c.job_id = t.job_id and c.step = t.step
                                                 and c.outcome = 'committed')
           for update of t
    ),"""
    + lanes.GOES_ON
    + """,
    b as (  -- a branch has a head of its own
        update branches b
           set head = %(new)s, tree = coalesce(%(tree)s, b.tree), updated_at = now()
          from f, u
         where b.project_id = f.project_id and b.lane = f.lane and b.promoted_at is null
           and b.head = %(old)s
        returning b.lane, coalesce(b.tree, b.from_tree) as tree
    ), h as (
        update projects p
           set last_ai_session_id = case f.lane when 'main' then %(new)s
                                                else p.last_ai_session_id end,
               last_ai_session_updated_at = case f.lane when 'main' then now()
                                            else p.last_ai_session_updated_at end,
               fresh_next = p.fresh_next and not %(was_fresh)s,
               workspace_tree = case f.lane when 'main' then coalesce(%(tree)s, p.workspace_tree)
                                            else p.workspace_tree end,
               event_seq = p.event_seq + (select count(*) from said)
          from f, u
         where p.project_id = f.project_id
           and (f.lane <> 'main' or p.last_ai_session_id is not distinct from %(old)s)
           and (f.lane = 'main' or exists (select from b))
        returning p.project_id, p.event_seq, f.lane,
                  case f.lane when 'main' then p.workspace_tree
                              else (select b.tree from b) end as tree
    ), k as (
        select f.*, h.tree from f, h
    ), d as (
        update jobs set result = coalesce(jobs.result, '{}') || %(result)s,
               state = case when %(final)s then 'done' else jobs.state end,
               finished_at = case when %(final)s then now() end,
               lease_until = case when %(final)s then null else jobs.lease_until end,
               version_id = coalesce(jobs.version_id, %(version_id)s),
               error_class = null, error = null
          from h where jobs.id = %(id)s
    ), v as (
        update project_versions v
           set ai_session_id = %(new)s, ai_session_last_used_at = now(),
               ai_session_created_at = coalesce(v.ai_session_created_at, now()),
               tree = coalesce(%(tree)s, v.tree)
          from h
         where v.project_id = h.project_id and v.version_id = %(version_id)s
        returning v.version_id
    ), nv as (
        insert into project_versions (project_id, version_id, tree, ai_session_id,
                                      ai_session_created_at, ai_session_last_used_at)
        select h.project_id, %(version_id)s, %(tree)s, %(new)s, now(), now()
          from h where %(new_version)s and not exists (select from v)
    ), t as (
        insert into session_transitions (project_id, version_id, old_session_id,
                                         new_session_id, parent_session_id, source, reason,
                                         job_id, tree)
        select h.project_id, %(version_id)s, %(old)s, %(new)s, %(parent)s, %(source)s,
               %(reason)s, %(id)s, h.tree
          from h where h.lane = 'main'
    ), pm as (
        select raw_cost_usd, turns_since_start from project_ai_session_metrics
         where session_id = %(parent)s limit 1
    ),"""
    + costs.PRICE
    + """,
    figures as (  -- the parent's unknown figure is in ours: then the cost is a guess
        select coalesce(%(raw_cost_usd)s::numeric - case when pm.raw_cost_usd <= %(raw_cost_usd)s
                                                         then pm.raw_cost_usd else 0 end, 0)
               + case when %(weight)s::numeric > 0
                      then coalesce(%(weight)s::numeric * (select usd from price), 0) else 0 end
               as cost,
               %(raw_cost_usd)s::numeric is null or %(weight)s::numeric > 0
                   or (%(parent)s::text is not null and pm.raw_cost_usd is null) as estimated,
               case when %(compacted)s then 0 else coalesce(pm.turns_since_start, 0) + 1
               end as turns_since_start
          from (select 1) one left join pm on true
    ), om as (
        update project_ai_session_metrics m set status = 'disconnected'
          from h where m.session_id = %(old)s and m.project_id = h.project_id
                   and m.status = 'active' and %(old)s <> %(new)s and m.lane = h.lane
    ), km as (  -- the same id again: it is touched, and what the turn used is added
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
               summary = coalesce(%(summary)s, m.summary), tree = h.tree,
               digest_files = coalesce(%(files)s, m.digest_files),
               digest_documentation = coalesce(%(documentation)s, m.digest_documentation)
          from h, figures where m.session_id = %(new)s and m.project_id = h.project_id
        returning session_id
    ), m as (
        insert into project_ai_session_metrics
               (session_id, project_id, user_id, version_id, parent_session_id, job_id, step,
                input_tokens, output_tokens, cache_read_tokens, cache_creation_tokens,
                context_tokens, cost_usd, cost_estimated, raw_cost_usd, duration_ms, num_turns,
                turns_since_start, model, cli_version, resumed, summary, lane, old_session_id, tree,
                digest_files, digest_documentation)
        select %(new)s, k.project_id, k.user_id, %(version_id)s, %(parent)s, k.id, %(step)s,
               %(input_tokens)s, %(output_tokens)s, %(cache_read_tokens)s,
               %(cache_creation_tokens)s, %(context_tokens)s, figures.cost, figures.estimated,
               %(raw_cost_usd)s, %(duration_ms)s, %(num_turns)s, figures.turns_since_start,
               %(model)s, %(cli_version)s, %(parent)s::text is not null, %(summary)s, k.lane, %(old)s,
               k.tree, %(files)s, %(documentation)s
          from k, figures where not exists (select from km)
    ), c as (
        insert into project_chat_log_minimal
               (project_id, session_id, ai_session_id, role, content, job_id, created_at)
        select h.project_id, %(new)s, %(new)s, x.value ->> 'role', x.value ->> 'content', %(id)s,
               now() + x.n * interval '1 microsecond'  -- in the order of saying
          from h, jsonb_array_elements(%(chat)s) with ordinality as x (value, n) order by x.n
    ), cp as (
        insert into chat_plan_sessions (session_id, project_id, user_id, job_id)
        select %(new)s, k.project_id, k.user_id, k.id from k where %(chat_plan)s
            on conflict do nothing
    ), tu as (
        update turns set outcome = 'committed', observed_session_id = %(new)s,
               relation = %(relation)s, cost_usd = figures.cost,
               cost_estimated = figures.estimated, error_class = null,
               cli_version = %(cli_version)s, ended_at = now()
          from h, u, figures where turns.id = u.id
    ), r as (
        update session_resume_attempts a
           set outcome = case when a.session_id is null then 'fresh'
                              when %(relation)s = 'reset' then 'failed' else 'resumed' end,
               reason = case when a.session_id is not null and %(relation)s = 'reset'
                             then 'reset' else a.reason end
          from h
         where a.job_id = %(id)s and a.attempt = %(attempt)s and a.outcome = 'trying'
    ),"""
    + events.WRITE_SAID
    + ","
    + lanes.FOLLOW
    + """
    select figures.cost, h.event_seq, n.* from h, figures left join n on %(final)s"""
)
