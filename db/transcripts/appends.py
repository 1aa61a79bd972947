"""Adding to a transcript: its new entries, each body stored once per project, in the
caller's transaction, at Postgres' default isolation.

    append  ──►  lock the project  ──►  look what is here  ──►  bodies  ──►  batch and session
                                        (four statements sent in one go)

Writers of one project (append, delete, sweep) take turns on an advisory lock that ends
with their transaction. So a sweep never takes a body that an append is about to refer
to, and appends meet in no order that could deadlock. Readers take no lock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Json

from db.transcripts.form import Body, Entry, batch_digest, body, compress, overlay, runs_of

# A writer that stops in mid-transaction (a paused process) is let go of after this.
WRITER_SILENT = "10s"
# One that stops, or is cut off, in the middle of statements sent in one go counts as busy, and
# not as silent: it is let go of after this (from Postgres 17 on).
WRITER_LASTS = "30s"

Summary = dict[str, Any]
Fold = Callable[[Summary | None, list[Entry]], Summary]


@dataclass(frozen=True, slots=True)
class _Found:
    """What an append finds already there."""

    last_digest: bytes | None
    summary: Summary | None
    here: set[UUID]  # uuids that the transcript holds
    ids: dict[bytes, int]  # bodies that the project holds, by digest


def append(
    conn: Connection,
    project_id: str,
    session_id: str,
    entries: list[Entry],
    *,
    subpath: str = "",
    fold: Fold | None = None,
    again: bool = False,
) -> int:
    """Add entries in order and return how many were new to the transcript.

    An entry whose uuid the transcript holds is passed over; one without a uuid is added
    whenever it comes. `again` says that this very batch was tried before and nobody
    knows whether it was committed: if it is the transcript's newest, nothing is added.
    `fold` makes the next summary from the last one and the new entries.
    """
    if not entries:
        return 0
    where = _where(project_id, session_id, subpath)
    bodies = [body(entry) for entry in entries]
    came = batch_digest(bodies, overlay(entries))
    found = _find(conn, where, bodies)
    if again and found.last_digest == came:
        return 0
    new = _unseen(bodies, found.here)
    if new:
        kept = [entries[n] for n in new]
        added = [bodies[n] for n in new]
        ids = found.ids | _insert_bodies(conn, project_id, added, found.ids)
        summary = fold(found.summary, kept) if fold else found.summary
        _insert_batch(conn, where, kept, added, ids=ids, came=came, summary=summary)
    return len(new)


def lock(conn: Connection, project_id: str, *, lasts: str = "0") -> None:
    """Be the one writer of the project's transcripts until the transaction ends; `lasts`: for
    so long at most, in Postgres' units, "0" without an end."""
    conn.execute(
        """
        select set_config('idle_in_transaction_session_timeout', %s, true),
               pg_advisory_xact_lock(hashtextextended('transcripts of ' || %s, 0)),
               case when current_setting('server_version_num')::int >= 170000
                    then set_config('transaction_timeout', %s, true) end
        """,
        (WRITER_SILENT, project_id, lasts),
    )


def _where(project_id: str, session_id: str, subpath: str) -> dict[str, Any]:
    return {"project_id": project_id, "session_id": session_id, "subpath": subpath}


def _unseen(bodies: list[Body], here: set[UUID]) -> list[int]:
    """Positions of the entries to add: a uuid that is here, or came before, is not added."""
    seen, new = set(here), list[int]()
    for n, found in enumerate(bodies):
        if found.uuid is None or found.uuid not in seen:
            new.append(n)
        if found.uuid is not None:
            seen.add(found.uuid)
    return new


def _find(conn: Connection, where: dict[str, Any], bodies: list[Body]) -> _Found:
    """Take the project's turn, and look: four statements sent in one go."""
    asked = where | {
        "digests": [found.digest for found in bodies],
        "uuids": [found.uuid for found in bodies if found.uuid],
    }
    with conn.pipeline():
        lock(conn, where["project_id"], lasts=WRITER_LASTS)
        state = conn.execute(
            """
            select last_digest, summary from transcript_sessions
             where (project_id, session_id, subpath)
                   = (%(project_id)s, %(session_id)s, %(subpath)s)
            """,
            asked,
        )
        here = conn.execute(
            """
            select e.uuid from transcript_entries e
             where e.project_id = %(project_id)s and e.uuid = any(%(uuids)b::uuid[])
               and exists (select from transcript_batches      -- a new session: no look at e
                            where (project_id, session_id, subpath)
                                  = (%(project_id)s, %(session_id)s, %(subpath)s))
               and exists (select from transcript_batches b,
                                       unnest(b.starts, b.runs) as r (start, run)
                            where (b.project_id, b.session_id, b.subpath)
                                  = (%(project_id)s, %(session_id)s, %(subpath)s)
                              and e.id >= r.start and e.id < r.start + r.run)
            """,
            asked,
        )
        ids = conn.execute(
            """
            select digest, id from transcript_entries
             where project_id = %(project_id)s and digest = any(%(digests)b)
            """,
            asked,
            binary=True,
        )
    last_digest, summary = state.fetchone() or (None, None)
    return _Found(last_digest, summary, {uuid for (uuid,) in here}, dict(ids.fetchall()))


def _insert_bodies(
    conn: Connection, project_id: str, bodies: list[Body], ids: dict[bytes, int]
) -> dict[bytes, int]:
    """Store the bodies that the project lacks. Ids follow the entries' order: few runs."""
    lacking = {found.digest: found for found in bodies if found.digest not in ids}
    if not lacking:
        return {}
    rows = conn.execute(
        """
        insert into transcript_entries (project_id, digest, uuid, body)
        select %s, digest, uuid, body
          from unnest(%b::bytea[], %b::uuid[], %b::bytea[])
               with ordinality as e (digest, uuid, body, n)
         order by n
        returning digest, id
        """,
        (
            project_id,
            list(lacking),
            [found.uuid for found in lacking.values()],
            [compress(found) for found in lacking.values()],
        ),
        binary=True,
    )
    return dict(rows.fetchall())


def _insert_batch(
    conn: Connection,
    where: dict[str, Any],
    entries: list[Entry],
    bodies: list[Body],
    *,
    ids: dict[bytes, int],
    came: bytes,
    summary: Summary | None,
) -> None:
    starts, runs = runs_of([ids[found.digest] for found in bodies])
    conn.execute(
        """
        with batch as (
            insert into transcript_batches
                   (project_id, session_id, subpath, starts, runs, overlay, entries, bytes)
            values (%(project_id)s, %(session_id)s, %(subpath)s,
                    %(starts)s::bigint[], %(runs)s::integer[], %(overlay)b,
                    %(entries)s, %(bytes)s)
            returning *
        )
        insert into transcript_sessions as s
               (project_id, session_id, subpath, entries, bytes, last_batch, last_digest, summary)
        select project_id, session_id, subpath, entries, bytes, id, %(came)b, %(summary)s
          from batch
        on conflict (project_id, session_id, subpath) do update
           set entries = s.entries + excluded.entries, bytes = s.bytes + excluded.bytes,
               last_batch = excluded.last_batch, last_digest = excluded.last_digest,
               summary = excluded.summary, updated_at = clock_timestamp()
        """,
        where
        | {
            "starts": starts,
            "runs": runs,
            "overlay": overlay(entries),
            "entries": len(entries),
            "bytes": sum(len(found.json) for found in bodies),
            "came": came,
            "summary": None if summary is None else Json(summary),
        },
    )
