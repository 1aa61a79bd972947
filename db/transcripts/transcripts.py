"""Transcripts of agent sessions in Postgres: shared history is stored once.

    transcript_sessions   one row a transcript      what there is, how much, how new
      transcript_batches  one row an append         which entries, in order, as runs of ids
        transcript_entries  one row a body          each once per project

Adding to one: db/transcripts/appends.py. A fork by the CLI leaves the transcripts of sub-agents
behind: db/transcripts/forks.py.
"""

import zlib
from dataclasses import dataclass
from typing import LiteralString

from psycopg import Connection
from psycopg.rows import class_row, scalar_row

from db.transcripts.form import Entry, restore


class TranscriptDamaged(Exception):
    """A session is stored in part only, or cannot be read; the text says which."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """One append as it is stored."""

    mark: str  # the session's fingerprint
    expected: int  # entries of the whole transcript
    overlay: bytes | None  # null: the transcript's row stands alone
    bodies: list[bytes]


def load(
    conn: Connection, project_id: str, session_id: str, *, subpath: str = ""
) -> list[Entry] | None:
    """The entries, equal to what was appended and in order; None if there is no such transcript.

    Raises TranscriptDamaged if anything of it is missing or unreadable.
    """
    marked = load_marked(conn, project_id, session_id, subpath=subpath)
    return marked[0] if marked else None


def load_marked(
    conn: Connection, project_id: str, session_id: str, *, subpath: str = ""
) -> tuple[list[Entry], str] | None:
    """As `load`, with the session's fingerprint of the same moment."""
    where = {"project_id": project_id, "session_id": session_id, "subpath": subpath}
    batches = _batches(conn, where)
    if not batches:
        return None
    expected, entries = batches[0].expected, list[Entry]()
    for batch in batches:
        if batch.overlay is None:
            continue  # told of by the number of entries
        try:
            entries += restore(batch.bodies, batch.overlay)
        except (zlib.error, ValueError) as exc:
            raise TranscriptDamaged(f"Session {session_id}: an entry is unreadable.") from exc
    if len(entries) != expected:
        raise TranscriptDamaged(
            f"Session {session_id}: {len(entries)} entries are stored, {expected} were appended."
        )
    return entries, batches[0].mark


def fingerprint(conn: Connection, project_id: str, session_id: str) -> str | None:
    """Differs whenever the stored session can have changed; None if it is gone.

    Two sessions found sound under the same fingerprint need not be read twice. Covers
    sub-agents, and rows taken away by hand (the tables note removals).
    """
    with conn.cursor(row_factory=scalar_row) as cur:
        return cur.execute(
            FINGERPRINT,
            {"project_id": project_id, "session_id": session_id},
        ).fetchone()


FINGERPRINT: LiteralString = """
    select concat_ws(' ',
               string_agg(subpath || ':' || last_batch || ':' || entries, ',' order by subpath),
               (select string_agg(project_id || ':' || xact, ',' order by project_id)
                  from transcript_removals where project_id in ('', %(project_id)s)))
      from transcript_sessions
     where project_id = %(project_id)s and session_id = %(session_id)s
    having bool_or(subpath = '')"""


def exists(conn: Connection, project_id: str, session_id: str) -> bool:
    return fingerprint(conn, project_id, session_id) is not None


def _batches(conn: Connection, where: dict[str, str]) -> list[_Batch]:
    """All of a transcript in one statement, so that it is seen as of one moment.

    The planner is left one way, a range of the primary key for each run: `order by`
    keeps the lateral part apart, `is not distinct from` keeps off the project's index.
    """
    with conn.cursor(binary=True, row_factory=class_row(_Batch)) as cur:
        return cur.execute(
            "select coalesce(("
            + FINGERPRINT
            + """), '') as mark, s.entries as expected, b.overlay,
                   array(select run.body
                           from unnest(b.starts, b.runs) with ordinality as r (start, length, n)
                          cross join lateral
                                (select e.id, e.body from transcript_entries e
                                  where e.id >= r.start and e.id < r.start + r.length
                                    and e.project_id is not distinct from b.project_id
                                  order by e.id) run
                          order by r.n, run.id) as bodies
              from transcript_sessions s
              left join transcript_batches b using (project_id, session_id, subpath)
             where (s.project_id, s.session_id, s.subpath)
                   = (%(project_id)s, %(session_id)s, %(subpath)s)
             order by b.id
            """,
            where,
        ).fetchall()
