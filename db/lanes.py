"""Lanes: whose turn it is, and what follows when a job has ended.

A lane is one line of work of a project. These are fragments of the statements that
claim, commit, end and publish jobs, so that all of them keep the same order.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

MAIN = "main"  # the project's main line; any other lane is a branch (db/branches.py)


@dataclass(frozen=True, slots=True)
class Message:
    """What is published for a job: a wake-up that names it."""

    id: UUID
    kind: str
    chain_id: UUID
    parent_id: UUID | None
    published: int
    previous_session_id: str | None
    rung: bool = True  # else the relay sends it: others go before


@dataclass(frozen=True, slots=True)
class Next:
    """The job that follows in the chain, to be inserted by the commit."""

    id: UUID
    kind: str
    args: dict[str, Any]


# Whether the job `q` is first in its lane (db/functions/order.sql).
FIRST: LiteralString = """
    baton_first(q.project_id, q.lane, q.chain_id, q.pos,
                q.started_at is not null or q.id <> q.chain_id)"""


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


# The chain's next job. `k` is the job's row once all that guards the statement has passed. Its
# worker sends the message itself, unless a job that goes before it waits for a slot (`w`): then
# the relay, which chooses between lanes, finds it at once.
FOLLOW: LiteralString = """
    w as (
        select baton_waits_ahead(k.user_id, k.priority, k.pos) as ahead from k
    ), n as (
        insert into jobs (id, chain_id, parent_id, project_id, user_id, lane, pos, kind, args,
                          priority, version_id, previous_session_id, publish_after, published_at,
                          published, messages, announced)
        select %(next_id)s, k.chain_id, k.id, k.project_id, k.user_id, k.lane, k.pos,
               %(next_kind)s, %(next_args)s, k.priority, coalesce(%(version_id)s, k.version_id),
               %(new)s, case when w.ahead then now() else now() + %(publish_after)s end,
               case when not w.ahead then now() end, (not w.ahead)::int, (not w.ahead)::int, true
          from k, w, on_we_go where on_we_go.yes
        returning id, kind, chain_id, parent_id, 0 as published, previous_session_id,
                  published_at is not null as rung
    )"""


def follow_params(following: Next | None, publish_after: timedelta) -> dict[str, Any]:
    """Parameters of GOES_ON and FOLLOW; `version_id` and `new` are the caller's."""
    return {
        "next_id": following.id if following else None,
        "next_kind": following.kind if following else None,
        "next_args": Jsonb(following.args) if following else None,
        "publish_after": publish_after,
    }


def published(rows: list[Any]) -> tuple[int | None, list[Message]] | None:
    """Read what a statement with FOLLOW returns: event number, then the next job's message."""
    if not rows:
        return None
    return rows[0][0], [Message(*row[1:]) for row in rows if row[1] is not None]
