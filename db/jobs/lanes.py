"""Lanes: whose turn it is, and what follows when a job has ended.

A lane is one line of work of a project. These are fragments of the statements that
claim, commit, end and publish jobs, so that all of them keep the same order.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.types.json import Jsonb

MAIN = "main"  # the project's main line; any other lane is a branch (db/projects/branches.py)


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
    served: bool = False  # whether it is noted that its user was served


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


# What is wanted of the runner of the job `j`.
WANTED: LiteralString = """
    case when j.cancel_requested_at is not null then 'cancel'
         when j.args ? 'racer' and exists (  -- the race that it is part of is over
            select from jobs r where r.id = j.parent_id and r.finished_at is not null) then 'cancel'
         when exists (select from jobs i
                       where i.project_id = j.project_id and i.lane = j.lane
                         and i.finished_at is null and i.id = i.chain_id and i.started_at is null
                         and i.run_at <= now()
                         and i.chain_id <> j.chain_id and i.args ->> 'busy' = 'interrupt')
         then 'replaced' else 'go on' end"""


# What these fragments read of `the_job`, and of `the_former`.
OF_JOB: LiteralString = """
    id, chain_id, parent_id, project_id, user_id, lane, pos, args, priority, version_id,
    previous_session_id, cancel_requested_at"""


# Whether the chain goes on after `the_job`: not if a cancel or a newer request came in time.
# The next job's event is told only if there is a next job.
GOES_ON: LiteralString = (
    """
    goes_on as (
        select %(next_id)s::uuid is not null and """
    + WANTED
    + """ = 'go on' as yes from the_job as j
    ), to_tell as (
        select x.value, row_number() over (order by x.n) as n
          from goes_on, jsonb_array_elements(%(events)s) with ordinality as x (value, n)
         where goes_on.yes or %(next_id)s::uuid is null
            or x.value ->> 'job' is distinct from %(next_id)s::uuid::text
    )"""
)


# The chain's next job, after `the_former`: the row of the one before it, once all that guards the
# statement has passed. `sending`: whether its message goes out with the commit, and whether its
# `job.queued` is written. Needs `goes_on`.
NEXT_JOB: LiteralString = """
    next_job as (
        insert into jobs (id, chain_id, parent_id, project_id, user_id, lane, pos, kind, args,
                          priority, version_id, previous_session_id, publish_after, published_at,
                          published, messages, announced)
        select %(next_id)s::uuid, j.chain_id, j.id, j.project_id, j.user_id, j.lane, j.pos,
               %(next_kind)s, %(next_args)s, j.priority, coalesce(%(version_id)s, j.version_id),
               coalesce(%(new)s, j.previous_session_id),
               case when s.now then now() + %(publish_after)s else now() end,
               case when s.now then now() end, s.now::int, s.now::int, s.told
          from the_former j, sending s, goes_on where goes_on.yes
        returning id, kind, chain_id, parent_id, 0 as published, previous_session_id,
                  published_at is not null as rung
    )"""


# As the worker of the one before inserts it: it sends the message itself, unless a job that goes
# before this one waits for a slot. Then the relay, which chooses between lanes, finds it at once.
FOLLOW: LiteralString = (
    """
    sending as (
        select not baton_waits_ahead(j.user_id, j.priority, j.pos) as now, true as told
          from the_former j
    ),"""
    + NEXT_JOB
    + """,
    served as (  -- between users it is by turns; nobody waits for one who is at it
        update user_turns u set served_at = now()
          from (select t.user_id from user_turns t
                 where t.user_id = (select j.user_id from the_former j)
                   and (select rung from next_job)
                   for update skip locked) free
         where u.user_id = free.user_id
        returning u.user_id
    )"""
)
# What is read of the job that follows, after FOLLOW.
FOLLOWING: LiteralString = "next_job.*, exists (select from served)"


def follow_params(following: Next | None, publish_after: timedelta) -> dict[str, Any]:
    """Parameters of GOES_ON and NEXT_JOB; `version_id` and `new` are the caller's. Of one type whether
    a job follows or none: by their types a statement is planned."""
    return {
        "next_id": str(following.id) if following else None,
        "next_kind": following.kind if following else None,
        "next_args": Jsonb(following.args if following else {}),
        "publish_after": publish_after,
    }


def messages(rows: list[Any]) -> list[Message]:
    """What is to be published, of rows that are each a row of `next_job`, or nulls."""
    return [Message(*row) for row in rows if row[0] is not None]
