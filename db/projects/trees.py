"""Which git commits of a project's workspace the ledger names, for something to go back to."""

from collections.abc import Sequence
from typing import LiteralString

from psycopg import Connection

# The commits of the project's files, of its versions and branches, and of every session that
# can be resumed: by its turn, and by each move of the head to it.
NAMED: LiteralString = """
    with resumable as (
        select session_id, tree from project_ai_session_metrics
         where project_id = %(project)s and is_resumable
    ), named as (
        select workspace_tree as tree from projects where project_id = %(project)s
        union select tree from project_versions where project_id = %(project)s
        union select unnest(array[tree, from_tree]) from branches
               where project_id = %(project)s
        union select tree from resumable
        union select t.tree from session_transitions t
                join resumable r on r.session_id = t.new_session_id
               where t.project_id = %(project)s
        union select t.tree from session_transitions_archive t
                join resumable r on r.session_id = t.new_session_id
               where t.project_id = %(project)s
    )"""


def named(conn: Connection, project_id: str) -> set[str] | None:
    """All commits that the ledger names.

    None while a job of the project runs, or if the project is unknown.
    """
    rows = conn.execute(
        NAMED
        + """
        select n.tree
          from projects p left join named n on n.tree is not null
         where p.project_id = %(project)s
           and not exists (select from jobs j
                            where j.project_id = %(project)s and j.state = 'running')
        """,
        {"project": project_id},
    ).fetchall()
    return {tree for (tree,) in rows if tree} if rows else None


def named_of(conn: Connection, project_id: str, commits: Sequence[str]) -> set[str]:
    """Those of the commits that the ledger names."""
    rows = conn.execute(
        NAMED + " select tree from named where tree = any(%(commits)s)",
        {"project": project_id, "commits": list(commits)},
    )
    return {tree for (tree,) in rows}


def newest_project(conn: Connection) -> str | None:
    """Of the projects whose heads moved of late the last with files; None before the first."""
    row = conn.execute(
        """
        select project_id
          from (select project_id, tree, created_at from session_transitions
                 order by created_at desc limit 1000) newest
         where tree is not null order by created_at desc limit 1
        """
    ).fetchone()
    return row[0] if row else None
