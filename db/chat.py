"""What Postgres knows of a project's past: what a fresh session is told."""

from dataclasses import dataclass, field

from psycopg import Connection
from psycopg.rows import scalar_row
from psycopg.types.json import Jsonb


@dataclass(frozen=True, slots=True)
class Past:
    """The material of a digest, newest chat last; `said` holds (role, text). `files` and
    `documentation` are those of the newest version of which they were noted."""

    summary: str | None
    said: list[tuple[str, str]]
    versions: list[str]
    files: list[str] = field(default_factory=list[str])
    documentation: str = ""


def past(conn: Connection, project_id: str, *, lane: str, messages: int = 20) -> Past:
    """The latest compaction's summary, the recent chat, and the versions, oldest first.

    Of the main line, and of the branch `lane` if it is one.
    """
    with conn.cursor(row_factory=scalar_row) as cur:
        summary = cur.execute(
            """
            select summary from project_ai_session_metrics
             where project_id = %s and summary is not null and lane in ('main', %s)
             order by created_at desc limit 1
            """,
            (project_id, lane),
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
        select role, content from project_chat_log_minimal c
         where project_id = %s and role is not null and content is not null
           and not exists (select from project_ai_session_metrics m
                            where m.session_id = c.ai_session_id
                              and m.lane not in ('main', %s))
         order by created_at desc limit %s
        """,
        (project_id, lane, messages),
    ).fetchall()
    noted = conn.execute(
        """
        select digest_files, coalesce(digest_documentation, '') from project_versions
         where project_id = %s and digest_files is not null
         order by created_at desc, id desc limit 1
        """,
        (project_id,),
    ).fetchone()
    files, documentation = noted or ([], "")
    return Past(summary, [(r, c) for r, c in reversed(said)], versions, files, documentation)


def note_files(
    conn: Connection,
    project_id: str,
    *,
    version: str,
    session: str,
    files: list[str],
    documentation: str,
) -> None:
    """Keep a version's file names and documentation, unless it has moved on to another session."""
    conn.execute(
        """
        update project_versions set digest_files = %s, digest_documentation = %s
         where project_id = %s and version_id = %s and ai_session_id = %s
        """,
        (Jsonb(files), documentation, project_id, version, session),
    )
