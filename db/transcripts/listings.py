"""What is stored of transcripts, and taking it away: for listings and for the clean-up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg import Connection
from psycopg.rows import class_row

from db.transcripts.appends import Summary, lock


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


@dataclass(frozen=True, slots=True)
class Held:
    """How many sessions a project has, and the size of all its transcripts as appended."""

    project_id: str
    sessions: int
    bytes: int


def projects(conn: Connection, *, after: str, limit: int) -> list[Held]:
    """The next projects that have transcripts, in the order of their ids."""
    with conn.cursor(row_factory=class_row(Held)) as cur:
        return cur.execute(PROJECTS, {"after": after, "limit": limit}).fetchall()


PROJECTS: LiteralString = """
    select project_id, count(*) filter (where subpath = '') as sessions,
           sum(bytes)::bigint as bytes
      from transcript_sessions where project_id > %(after)s
     group by project_id order by project_id limit %(limit)s"""


def unreachable(
    conn: Connection, of: Sequence[str], *, idle: timedelta
) -> list[tuple[str, str]]:
    """Sessions of these projects, as (project, session), that no head and no version names,
    oldest first.

    Only those to which nothing was appended for `idle`: a turn that runs, or that a
    rescue may yet go on from, is not among them.
    """
    return conn.execute(UNREACHABLE, {"idle": idle, "of": list(of)}).fetchall()


UNREACHABLE: LiteralString = """
    select s.project_id, s.session_id
      from transcript_sessions s
     where s.project_id = any(%(of)s::text[])
       and not exists (select from sessions_kept k
                        where k.project_id = s.project_id and k.session_id = s.session_id
                       offset 0)  -- asked of each session, by the index: not all that is kept
     group by s.project_id, s.session_id
    having max(s.updated_at) < clock_timestamp() - %(idle)s::interval
     order by max(s.updated_at)"""


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
