"""How much a project's transcripts take, and keeping them below a limit.

A body is stored once however many sessions hold it, so taking a session away frees only
what no kept one holds. From the newest session to the oldest, what fits is kept:

    head, newest version's, those of open jobs    kept, whatever they take
    newest of the others … down to the limit      kept
    the rest, oldest last                         gone, unless all of it is held by kept ones
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from psycopg import Connection
from psycopg.rows import class_row

from db.core import events
from db.core.events import Event, Written
from db.transcripts import appends, listings

NAMED = 50  # sessions that the event names


@dataclass(frozen=True, slots=True)
class Size:
    """What a project's transcripts take, in bytes: `stored` after sharing and compression."""

    project_id: str
    sessions: int
    bytes: int  # as they were appended
    stored: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was done to a project that was over its limit; `told` is empty if nobody can miss it."""

    project_id: str
    sessions: int
    stored: int  # bytes, afterwards
    told: list[Written] = field(default_factory=list[Written])


@dataclass(frozen=True, slots=True)
class _Session:
    """Which bodies a session holds, as runs of their ids."""

    session_id: str
    needed: bool
    starts: list[int]
    runs: list[int]


class _Kept:
    """Which bodies are kept, and how much more they become with another session's."""

    def __init__(self, sizes: dict[int, int]) -> None:
        self._ids = sorted(sizes)
        self._until = [0, *accumulate(sizes[number] for number in self._ids)]
        self._flags = bytearray(len(self._ids))
        self.bytes = 0

    def lacks(self, session: _Session) -> list[tuple[int, int]]:
        """The stretches of bodies that the session holds and that are not kept."""
        gaps = list[tuple[int, int]]()
        for start, run in zip(session.starts, session.runs, strict=True):
            low, high = bisect_left(self._ids, start), bisect_left(self._ids, start + run)
            while (low := self._flags.find(0, low, high)) >= 0:
                end = self._flags.find(1, low, high)
                gaps.append((low, end if end >= 0 else high))
                low = gaps[-1][1]
        return gaps

    def size(self, gaps: list[tuple[int, int]]) -> int:
        return sum(self._until[high] - self._until[low] for low, high in gaps)

    def add(self, gaps: list[tuple[int, int]]) -> None:
        for low, high in gaps:
            self.bytes += self.size([(low, high)])
            self._flags[low:high] = b"\1" * (high - low)


def measured(conn: Connection, projects: Sequence[str]) -> list[Size]:
    """What these projects' transcripts take, those that store most first. What is stored is
    read body by body: not a thing to be done for many."""
    with conn.cursor(row_factory=class_row(Size)) as cur:
        return cur.execute(
            """
            select held.*, (select coalesce(sum(octet_length(e.body)), 0)::bigint
                              from transcript_entries e
                             where e.project_id = held.project_id) as stored
              from (select project_id, count(*) filter (where subpath = '') as sessions,
                           sum(bytes)::bigint as bytes
                      from transcript_sessions where project_id = any(%s) group by 1) held
             order by stored desc, project_id
            """,
            (list(projects),),
        ).fetchall()


def prune(conn: Connection, limit: int, projects: Sequence[str]) -> list[Pruned]:
    """Bring those of the projects that store more than `limit` bytes below it, as far as may be."""
    found = measured(conn, projects)
    return [_prune(conn, size.project_id, limit) for size in found if size.stored > limit]


def _prune(conn: Connection, project_id: str, limit: int) -> Pruned:
    with conn.transaction():
        conn.execute(  # no head of the project moves until we have committed
            "select from projects where project_id = %s for no key update", (project_id,)
        )
        appends.lock(conn, project_id)
        gone = _surplus(_sessions(conn, project_id), _sizes(conn, project_id), limit)
        missed = _were_heads(conn, project_id, gone)
        for session_id in gone:
            listings.forget(conn, project_id, session_id)
        while listings.sweep_entries(conn, project_id):
            pass
        stored = sum(_sizes(conn, project_id).values())
        told = _tell(conn, project_id, missed, stored=stored, limit=limit) if missed else []
    return Pruned(project_id, len(gone), stored, told)


def _surplus(newest_first: list[_Session], sizes: dict[int, int], limit: int) -> list[str]:
    """The sessions to take away, the newest first."""
    kept, full, gone = _Kept(sizes), False, list[str]()
    for session in sorted(newest_first, key=lambda one: not one.needed):
        gaps = kept.lacks(session)
        full = full or kept.bytes + kept.size(gaps) > limit
        if full and gaps and not session.needed:
            gone.append(session.session_id)
        else:
            kept.add(gaps)
    return gone


def _sessions(conn: Connection, project_id: str) -> list[_Session]:
    """Sessions with those of their sub-agents, the newest first."""
    with conn.cursor(row_factory=class_row(_Session)) as cur:
        return cur.execute(
            """
            with newest as (
                select ai_session_id from project_versions
                 where project_id = %(project)s and version_id is not null
                 order by created_at desc, id desc limit 1
            ), needed as (
                select session_id from sessions_kept
                 where project_id = %(project)s and kept_as <> 'version'
                union select ai_session_id from newest
                union select unnest(array[t.minted_session_id, t.parent_session_id])
                  from jobs j join turns t on t.job_id = j.id
                 where j.project_id = %(project)s and j.finished_at is null
            ), held as (
                select b.session_id, r.start, r.run
                  from transcript_batches b, unnest(b.starts, b.runs) as r (start, run)
                 where b.project_id = %(project)s
            )
            select s.session_id, s.session_id in (select session_id from needed
                                                   where session_id is not null) as needed,
                   coalesce(held.starts, '{}') as starts, coalesce(held.runs, '{}') as runs
              from (select session_id, max(updated_at) as updated_at from transcript_sessions
                     where project_id = %(project)s group by 1) s
              left join (select session_id, array_agg(start) as starts, array_agg(run) as runs
                           from held group by 1) held using (session_id)
             order by s.updated_at desc, s.session_id
            """,
            {"project": project_id},
        ).fetchall()


def _sizes(conn: Connection, project_id: str) -> dict[int, int]:
    rows = conn.execute(
        "select id, octet_length(body) from transcript_entries where project_id = %s",
        (project_id,),
    )
    return dict(rows.fetchall())


def _were_heads(conn: Connection, project_id: str, sessions: list[str]) -> list[str]:
    """Those that somebody could have gone back to."""
    rows = conn.execute(
        """
        select session_id from unnest(%(sessions)s::text[]) with ordinality as s (session_id, n)
         where session_id in (select new_session_id from session_chain
                               where project_id = %(project)s)
            or session_id in (select session_id from sessions_kept
                               where project_id = %(project)s)
         order by n
        """,
        {"sessions": sessions, "project": project_id},
    )
    return [session_id for (session_id,) in rows]


def _tell(
    conn: Connection, project_id: str, missed: list[str], *, stored: int, limit: int
) -> list[Written]:
    body = {
        "count": len(missed),
        "sessions": missed[:NAMED],
        "stored_bytes": stored,
        "limit_bytes": limit,
    }
    return events.append(conn, project_id, [Event("sessions.pruned", None, body)])
