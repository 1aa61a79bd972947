"""What a fork of a session leaves behind: the transcripts of its sub-agents.

    parent   subagents/agent-1   4 batches ─┐        the same bodies
    child    subagents/agent-1   1 batch   ─┴──────► in transcript_entries

The CLI copies a session's own history when it forks, and not these. Without them a
sub-agent cannot be gone on with, and they would go with the parent when it is pruned.

A fork into another project, from a template, gets bodies of its own: a project's rows are
its own to delete.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row

from db.transcripts import appends, transcripts
from db.transcripts.appends import lock
from db.transcripts.form import Entry, joined
from db.transcripts.transcripts import TranscriptDamaged


@dataclass(frozen=True, slots=True)
class _Part:
    """One batch of a sub-agent's transcript; `expected` entries has the whole of it."""

    subpath: str
    expected: int
    last_digest: bytes
    starts: list[int]
    runs: list[int]
    overlay: bytes
    entries: int
    bytes: int


def carry(
    conn: Connection, project_id: str, *, parent: str, child: str, of: str | None = None
) -> int:
    """Give a fork its parent's sub-agents; how many it did not have yet. No body is copied.

    What the child then loads is what the parent loads, also once that is gone. `of` is the
    parent's project, if that is another one: then bodies are copied, and what is damaged
    there is left out. Wants to run inside a transaction, like everything that writes
    transcripts.
    """
    lock(conn, project_id)
    if of not in (None, project_id):
        return _copy(conn, of, project_id, parent=parent, child=child)
    where = {"project_id": project_id, "parent": parent, "child": child}
    with conn.cursor(binary=True, row_factory=class_row(_Part)) as cur:
        found = cur.execute(FOUND, where).fetchall()
        agents = [list(parts) for _, parts in groupby(found, lambda part: part.subpath)]
        cur.executemany(CARRIED, [where | _as_one(parts) for parts in agents])
    return len(agents)


def _copy(conn: Connection, of: str, project_id: str, *, parent: str, child: str) -> int:
    found = conn.execute(
        """
        select s.subpath from transcript_sessions s
         where s.project_id = %(of)s and s.session_id = %(parent)s and s.subpath <> ''
           and not exists (select from transcript_sessions c
                            where (c.project_id, c.session_id, c.subpath)
                                  = (%(project_id)s, %(child)s, s.subpath))
         order by s.subpath
        """,
        {"of": of, "project_id": project_id, "parent": parent, "child": child},
    ).fetchall()
    return sum(
        appends.append(conn, project_id, child, entries, subpath=subpath) > 0
        for (subpath,) in found
        if (entries := _whole(conn, of, parent, subpath))
    )


def _whole(conn: Connection, project_id: str, session_id: str, subpath: str) -> list[Entry]:
    try:
        return transcripts.load(conn, project_id, session_id, subpath=subpath) or []
    except TranscriptDamaged:
        return []


def _as_one(parts: list[_Part]) -> dict[str, Any]:
    """A transcript as one batch, so that forks of forks cost a row each and no more."""
    return {
        "subpath": parts[0].subpath,
        "expected": parts[0].expected,
        "last_digest": parts[0].last_digest,
        "starts": [start for part in parts for start in part.starts],
        "runs": [run for part in parts for run in part.runs],
        "overlay": joined([(part.overlay, part.entries) for part in parts]),
        "entries": sum(part.entries for part in parts),
        "bytes": sum(part.bytes for part in parts),
    }


FOUND = """
    select b.subpath, s.entries as expected, s.last_digest, b.starts, b.runs, b.overlay,
           b.entries, b.bytes
      from transcript_sessions s join transcript_batches b using (project_id, session_id, subpath)
     where s.project_id = %(project_id)s and s.session_id = %(parent)s and s.subpath <> ''
       and not exists (select from transcript_sessions c
                        where (c.project_id, c.session_id, c.subpath)
                              = (s.project_id, %(child)s, s.subpath))
     order by b.subpath, b.id"""

CARRIED = """
    with batch as (
        insert into transcript_batches
               (project_id, session_id, subpath, starts, runs, overlay, entries, bytes)
        values (%(project_id)s, %(child)s, %(subpath)s, %(starts)s::bigint[],
                %(runs)s::integer[], %(overlay)b, %(entries)s, %(bytes)s)
        returning *
    )
    insert into transcript_sessions
           (project_id, session_id, subpath, entries, bytes, last_batch, last_digest)
    select project_id, session_id, subpath, %(expected)s, bytes, id, %(last_digest)b from batch"""
