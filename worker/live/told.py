"""A job as producers are told of it: over HTTP, and by webhooks."""

from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString
from uuid import UUID

from pydantic import BaseModel


class Job(BaseModel):
    """A job as it stands. Costs are in USD; tokens are of all its turns. `waits`: why, while it does (a `code`
    and a `sentence`, and `until` if that is known); a webhook, which tells of an end, has none."""

    id: UUID
    chain: UUID
    kind: str
    project: str
    user: str
    state: str
    attempts: int
    ended: bool
    chain_ended: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error_class: str | None
    error: str | None
    result: dict[str, Any] | None
    session: str | None
    version: str | None
    cost_usd: Decimal | None
    tokens: dict[str, int]
    checks: list[dict[str, Any]] = []
    waits: dict[str, Any] | None = None


# A row with the fields of `Job`: the same text for a plain and an async connection.
JOB: LiteralString = """
    select j.id, j.chain_id as chain, j.kind, j.project_id as project, j.user_id as user, j.state,
           j.attempts, j.finished_at is not null as ended,
           not exists (select from jobs o
                        where o.chain_id = j.chain_id and o.finished_at is null) as chain_ended,
           j.created_at, j.started_at, j.finished_at, j.error_class, j.error, j.result,
           used.session, j.version_id as version, used.cost_usd,
           jsonb_build_object('input', used.input, 'output', used.output,
                              'cache_read', used.cache_read,
                              'cache_creation', used.cache_creation) as tokens,
           (select coalesce(jsonb_agg(jsonb_build_object(
                       'round', c.round, 'number', c.number, 'command', c.command,
                       'outcome', c.outcome, 'exit_status', c.exit_status, 'signal', c.signal,
                       'reason', c.reason, 'duration_ms', c.duration_ms, 'changed', c.changed,
                       'output', right(case c.output_tail when '' then c.output_head
                                       else c.output_tail end, 2000)) order by c.id), '[]')
              from checks c where c.job_id = j.id) as checks
      from jobs j cross join lateral (
        select sum(m.cost_usd) as cost_usd,
               coalesce(sum(m.input_tokens), 0) as input,
               coalesce(sum(m.output_tokens), 0) as output,
               coalesce(sum(m.cache_read_tokens), 0) as cache_read,
               coalesce(sum(m.cache_creation_tokens), 0) as cache_creation,
               (array_agg(m.session_id order by m.created_at desc))[1] as session
          from project_ai_session_metrics m where m.job_id = j.id) used
     where j.id = %s"""
