"""Heads: how a project's, or a branch's, newest session becomes another one.

MOVE is the only text that moves a head. A turn's commit has it in its own statement
(db/sessions/commits.py); `move` is for operators: to rewind, to promote a branch, to import a session.
All of them compare before they swap, and write the transition and the event with it.
"""

from dataclasses import asdict, dataclass
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection

from db.core import events
from db.core.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One move of a head, as the chain of sessions keeps it."""

    old: str | None  # the head that is replaced
    new: str
    parent: str | None = None  # the session that was forked; None: fresh
    source: str
    reason: str | None = None
    version_id: str | None = None
    tree: str | None = None  # the workspace's commit, if it is another with the new head
    files_known: bool = True  # whether the workspace is then as the new session knows it


# The head of the line that is named in `mover (project_id, lane)` moves from `old` to `new`. Where
# it is not `old` any more there is no row of `the_project`, and nothing else may be written either.
# `to_tell` are the events that the statement will write (db/core/events.py). Parameters: those of `Move`,
# the `project`, the job's `id` or null, and `was_fresh`: the move answers what was asked for the next turn.
MOVE: LiteralString = """
    the_branch as (  -- a branch has a head of its own
        update branches b
           set head = %(new)s, tree = coalesce(%(tree)s, b.tree), updated_at = now()
          from mover m
         where b.project_id = %(project)s and b.project_id = m.project_id and b.lane = m.lane
           and coalesce(b.promoted_at, 'infinity') = 'infinity'  -- none; as no index has it: by its key
           and b.head = %(old)s
        returning b.lane, coalesce(b.tree, b.from_tree) as tree
    ), the_project as (  -- its row numbers the events, whichever line moves
        update projects p
           set last_ai_session_id = case m.lane when 'main' then %(new)s
                                                else p.last_ai_session_id end,
               last_ai_session_updated_at = case m.lane when 'main' then now()
                                            else p.last_ai_session_updated_at end,
               fresh_next = p.fresh_next and not %(was_fresh)s,
               workspace_tree = case m.lane when 'main' then coalesce(%(tree)s, p.workspace_tree)
                                            else p.workspace_tree end,
               event_seq = p.event_seq + (select count(*) from to_tell)
          from mover m
         where p.project_id = m.project_id
           and (m.lane <> 'main' or p.last_ai_session_id is not distinct from %(old)s)
           and (m.lane = 'main' or exists (select from the_branch))
        returning p.project_id, p.event_seq, m.lane,
                  case m.lane when 'main' then p.workspace_tree
                              else (select b.tree from the_branch b) end as tree
    ), transition as (  -- of the main line only: a branch's moves are told by its sessions
        insert into session_transitions (project_id, version_id, old_session_id,
                                         new_session_id, parent_session_id, source, reason,
                                         job_id, tree)
        select p.project_id, %(version_id)s, %(old)s, %(new)s, %(parent)s, %(source)s,
               %(reason)s, %(id)s, case when %(files_known)s then p.tree end
          from the_project p where p.lane = 'main'
    ), replaced_session as (
        update project_ai_session_metrics m set status = 'disconnected'
          from the_project p where m.session_id = %(old)s and m.project_id = p.project_id
                   and m.status = 'active' and %(old)s <> %(new)s and m.lane = p.lane
    )"""

BY_OPERATOR: LiteralString = (
    "with"
    + events.ALL_GIVEN
    + """,
    mover as (
        select %(project)s::text as project_id, 'main' as lane
    ),"""
    + MOVE
    + """,
    chosen_session as (  -- somebody chose it: it is not stale
        update project_ai_session_metrics m
           set status = 'active', last_used_at = now(), stale_at = null
          from the_project p where m.session_id = %(new)s and m.project_id = p.project_id
    ),"""
    + events.WRITE
    + "select from the_project"
)


class HeadHeld(Exception):
    """The head was not moved; the text says why and what to do."""


def move(conn: Connection, project_id: str, to: Move, told: dict[str, Any]) -> None:
    """Move the head of a main line that `hold_head` holds, in the same transaction.

    The registry knows the new session already. `told` is the body of the event `session.moved`.
    """
    moved = conn.execute(
        BY_OPERATOR,
        asdict(to)
        | {
            "project": project_id,
            "id": None,
            "was_fresh": True,  # whatever was asked for the next turn, this answers it
            "events": events.as_param([Event("session.moved", None, told)]),
        },
    )
    if moved.rowcount != 1:
        raise HeadHeld(
            f"The head of project {project_id} is not {to.old} any more: look again."
        )


def hold_head(conn: Connection, project_id: str) -> str | None:
    """The head, under the project's lock, with no chain under way in the main lane.

    Raises HeadHeld otherwise.
    """
    row = conn.execute(
        "select last_ai_session_id from projects where project_id = %s for no key update",
        (project_id,),
    ).fetchone()
    if row is None:
        raise HeadHeld(f"Project {project_id} is unknown.")
    # What follows a build would go on from the other session, in the name of its version.
    under_way: tuple[UUID, str, str] | None = conn.execute(
        """
        select id, kind, state from jobs
         where project_id = %s and lane = 'main' and finished_at is null
           and (state = 'running' or id <> chain_id)
        """,
        (project_id,),
    ).fetchone()
    if under_way is None:
        return row[0]
    job_id, kind, state = under_way
    if state == "running":
        raise HeadHeld(f"Job {job_id} is running: wait for it, or cancel it first.")
    raise HeadHeld(
        f"The {kind} {job_id} of a build is still to come: wait for it, or cancel it first."
    )
