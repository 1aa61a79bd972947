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


def published(rows: list[Any]) -> tuple[int | None, list[Message]] | None:
    """Read what a statement with FOLLOW and WAKE returns: event number, then a message."""
    if not rows:
        return None
    return rows[0][0], [Message(*row[1:]) for row in rows if row[1] is not None]
