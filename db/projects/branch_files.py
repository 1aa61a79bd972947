"""What the ledger says of branches' files: which are of no use any more, and which are people's."""

from collections.abc import Sequence
from datetime import timedelta

from psycopg import Connection


def ended(
    conn: Connection, lanes: Sequence[tuple[str, str]], *, rest: timedelta
) -> list[tuple[str, str]]:
    """Which of these lanes, as (project, lane), are of branches that are promoted or gone.

    Not those that had a job within `rest`, whose worker may still be at its last bookkeeping,
    and none of a project that this ledger does not know.
    """
    return conn.execute(
        """
        select x.project_id, x.lane
          from unnest(%(projects)s::text[], %(lanes)s::text[]) as x (project_id, lane)
          join projects p on p.project_id = x.project_id
         where not exists (select from branches b
                            where b.project_id = x.project_id and b.lane = x.lane
                              and b.promoted_at is null)
           and not exists (select from jobs j
                            where j.project_id = x.project_id and j.lane = x.lane
                              and j.lane <> 'main'
                              and (j.finished_at is null
                                   or j.finished_at > clock_timestamp() - %(rest)s))
        """,
        {
            "projects": [project_id for project_id, _ in lanes],
            "lanes": [lane for _, lane in lanes],
            "rest": rest,
        },
    ).fetchall()


def promoted(conn: Connection, project_id: str, lane: str) -> bool:
    """Whether the lane is that of a branch that is promoted, and not of one that is gone."""
    row = conn.execute(
        """
        select exists (select from branches where project_id = %s and lane = %s
                                              and promoted_at is not null)
        """,
        (project_id, lane),
    ).fetchone()
    return bool(row and row[0])
