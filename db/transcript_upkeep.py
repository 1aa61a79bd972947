"""What is stored of transcripts, and taking it away: for listings and for the clean-up."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import Connection
from psycopg.rows import class_row

from db.transcripts import Summary, lock


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of a transcript without reading it."""

    session_id: str
    subpath: str
    entries: int
    bytes: int  # before compression and sharing
    updated_at: datetime
    summary: Summary | None


def listed(conn: Connection, project_id: str, session_id: str | None = None) -> list[Stored]:
    """The transcripts of a project, or of one session with those of its sub-agents."""
    with conn.cursor(row_factory=class_row(Stored)) as cur:
        return cur.execute(
            """
            select session_id, subpath, entries, bytes, updated_at, summary
              from transcript_sessions
             where project_id = %(project_id)s
               and (%(session_id)s::text is null or session_id = %(session_id)s)
             order by session_id, subpath
            """,
            {"project_id": project_id, "session_id": session_id},
        ).fetchall()


def delete(
    conn: Connection, project_id: str, session_id: str, *, subpath: str | None = None
) -> int:
    """Take away a session with its sub-agents, or one sub-agent's transcript only.

    Returns how many transcripts went. Their bodies stay until `sweep_entries`.
    """
    lock(conn, project_id)
    where = {"project_id": project_id, "session_id": session_id, "subpath": subpath}
    return conn.execute(
        """
        with gone as (
            delete from transcript_batches
             where project_id = %(project_id)s and session_id = %(session_id)s
               and (%(subpath)s::text is null or subpath = %(subpath)s)
        )
        delete from transcript_sessions
         where project_id = %(project_id)s and session_id = %(session_id)s
           and (%(subpath)s::text is null or subpath = %(subpath)s)
        """,
        where,
    ).rowcount


def forget(conn: Connection, project_id: str, session_id: str) -> bool:
    """Delete a session for good: it is not resumable any more. Whether there was one."""
    conn.execute(
        """
        update project_ai_session_metrics set is_resumable = false, status = 'expired'
         where session_id = %s and project_id = %s
        """,
        (session_id, project_id),
    )
    return delete(conn, project_id, session_id) > 0


def unreachable(
    conn: Connection, *, idle: timedelta, limit: int = 1000
) -> list[tuple[str, str]]:
    """Sessions, as (project, session), that no head and no version names, oldest first.

    Only those to which nothing was appended for `idle`: a turn that runs, or that a
    rescue may yet go on from, is not among them.
    """
    return conn.execute(
        """
        select s.project_id, s.session_id
          from transcript_sessions s
         where not exists (select from sessions_kept k
                            where k.project_id = s.project_id
                              and k.session_id = s.session_id)
         group by s.project_id, s.session_id
        having max(s.updated_at) < clock_timestamp() - %s
         order by max(s.updated_at)
         limit %s
        """,
        (idle, limit),
    ).fetchall()


SWEPT = 5000  # bodies in one sweep


def sweep_entries(conn: Connection, project_id: str, *, limit: int = SWEPT) -> int:
    """Delete up to `limit` bodies that no session of the project refers to; say how many."""
    lock(conn, project_id)
    return conn.execute(
        """
        delete from transcript_entries where id in (
            select id from transcript_entries where project_id = %(project_id)s
            except                                  -- hashed, whatever the planner believes
            select generate_series(lower(kept.ids), upper(kept.ids) - 1)
              from (select unnest(range_agg(int8range(r.start, r.start + r.run))) as ids
                      from transcript_batches b, unnest(b.starts, b.runs) as r (start, run)
                     where b.project_id = %(project_id)s) kept
             limit %(limit)s
        )
        """,
        {"project_id": project_id, "limit": limit},
    ).rowcount
