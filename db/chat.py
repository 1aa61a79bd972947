"""What Postgres knows of a project's past: what a fresh session is told."""

from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import scalar_row


@dataclass(frozen=True, slots=True)
class Past:
    """The material of a digest, newest chat last; `said` holds (role, text)."""

    summary: str | None
    said: list[tuple[str, str]]
    versions: list[str]


def past(conn: Connection, project_id: str, *, messages: int = 20) -> Past:
    """The latest compaction's summary, the recent chat, and the versions, oldest first."""
    with conn.cursor(row_factory=scalar_row) as cur:
        summary = cur.execute(
            """
            select summary from project_ai_session_metrics
             where project_id = %s and summary is not null
             order by created_at desc limit 1
            """,
            (project_id,),
        ).fetchone()
        versions = cur.execute(
            """
            select version_id from project_versions
             where project_id = %s and version_id is not null order by created_at, id
            """,
            (project_id,),
        ).fetchall()
    said = conn.execute(
        """
        select role, content from project_chat_log_minimal
         where project_id = %s and role is not null and content is not null
         order by created_at desc limit %s
        """,
        (project_id, messages),
    ).fetchall()
    return Past(summary=summary, said=[(r, c) for r, c in reversed(said)], versions=versions)
