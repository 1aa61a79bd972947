"""Branches: lines of work beside a project's main line, each with a head of its own.

main    A ── B ── C ──────────── T        T takes the branch's place in the main line,
              \\                /         if the head is still what was expected
branch         D ── E ── promoted
"""

from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import Connection
from psycopg.rows import class_row

from db import events
from db.events import Event
from db.jobs import REFUSED
from db.projects import HeadHeld, hold_head


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch: where it began, its newest session, and the git commit of its files."""

    lane: str
    user_id: str
    from_session: str
    head: str
    tree: str | None
    created_at: datetime
    promoted_at: datetime | None


def of_project(conn: Connection, project_id: str) -> list[Branch]:
    """The project's branches, the oldest first."""
    with conn.cursor(row_factory=class_row(Branch)) as cur:
        return cur.execute(
            """
            select lane, user_id, from_session, head, tree, created_at, promoted_at
              from branches where project_id = %s order by created_at, lane
            """,
            (project_id,),
        ).fetchall()


def promote(conn: Connection, project_id: str, lane: str, *, onto: str | None = None) -> Branch:
    """Make a branch's head the project's, if that is still `onto` (else: where the branch began).

    Raises HeadHeld, with nothing changed, when the head is another one, either line has
    work under way, or the branch is unknown, promoted or without a turn of its own.
    """
    with conn.transaction():
        head = hold_head(conn, project_id)
        branch = _open(conn, project_id, lane)
        expected = onto or branch.from_session
        if head != expected:
            raise HeadHeld(
                f"The main line has moved on to {head}: promote onto that one if the branch"
                " is to take its place."
            )
        version = lane if branch.tree else None
        _check_version(conn, project_id, version)
        conn.execute(
            PROMOTE,
            {
                "project": project_id,
                "lane": lane,
                "old": head,
                "new": branch.head,
                "parent": branch.from_session,
                "version": version,
                "tree": branch.tree,
            },
        )
        body = {
            "old": head,
            "session": branch.head,
            "parent": branch.from_session,
            "source": "fork",
            "branch": lane,
            "version": version,
        }
        events.append(conn, project_id, [Event("session.moved", None, body)])
    return branch


def _open(conn: Connection, project_id: str, lane: str) -> Branch:
    found = next((b for b in of_project(conn, project_id) if b.lane == lane), None)
    if found is None:
        raise HeadHeld(f"The project has no branch {lane}: see `baton project {project_id}`.")
    if found.promoted_at:
        raise HeadHeld("That branch is promoted already.")
    if found.head == found.from_session:
        raise HeadHeld("That branch has no turn of its own yet: wait for its job.")
    resumable = conn.execute(
        "select is_resumable from project_ai_session_metrics where session_id = %s",
        (found.head,),
    ).fetchone()
    if resumable != (True,):
        raise HeadHeld("The branch's session cannot be resumed: go on from another one.")
    busy = conn.execute(
        "select id from jobs where project_id = %s and lane = %s and finished_at is null limit 1",
        (project_id, lane),
    ).fetchone()
    if busy:
        raise HeadHeld(f"Job {busy[0]} of the branch is open: wait for it, or cancel it first.")
    return found


def _check_version(conn: Connection, project_id: str, version: str | None) -> None:
    """A product may have columns in its versions that only the product can fill."""
    try:
        if version:
            conn.execute("select baton_check_version('build', %s, %s)", (project_id, version))
    except psycopg.DatabaseError as exc:
        if exc.sqlstate != REFUSED:
            raise
        raise HeadHeld(str(exc.diag.message_primary)) from exc


PROMOTE = """
    with p as (
        update projects set last_ai_session_id = %(new)s, last_ai_session_updated_at = now(),
               fresh_next = false, workspace_tree = coalesce(%(tree)s, workspace_tree)
         where project_id = %(project)s
        returning workspace_tree
    ), b as (
        update branches set promoted_at = now() where project_id = %(project)s and lane = %(lane)s
    ), m as (
        update project_ai_session_metrics
           set lane = 'main',
               status = case session_id when %(new)s then 'active' else 'disconnected' end,
               last_used_at = case session_id when %(new)s then now() else last_used_at end,
               stale_at = case when session_id <> %(new)s then stale_at end
         where project_id = %(project)s and (lane = %(lane)s or session_id = %(old)s)
    ), v as (
        insert into project_versions (project_id, version_id, tree, ai_session_id,
                                      ai_session_created_at, ai_session_last_used_at)
        select %(project)s, %(version)s, %(tree)s, %(new)s, now(), now()
         where %(version)s::text is not null
    )
    insert into session_transitions (project_id, version_id, old_session_id, new_session_id,
                                     parent_session_id, source, reason, tree)
    select %(project)s, %(version)s, %(old)s, %(new)s, %(parent)s, 'fork', 'promoted',
           p.workspace_tree from p"""
