"""An append as it usually goes, in one statement (db/functions/transcripts.sql, baton_append).

Whoever writes a transcript alone knows what it left there, so nothing has to be asked before. Any
other case is answered with None, nothing written: db/transcripts/appends.py takes it then.
"""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Json

from db.transcripts.appends import Fold, Summary
from db.transcripts.form import Entry, batch_digest, body, compress, overlay


@dataclass(frozen=True, slots=True)
class Written:
    """What an append left: the transcript's newest batch, and its summary."""

    batch: int
    summary: Summary | None


@dataclass(frozen=True, slots=True)
class Writer:
    """Who appends: an attempt at a job; `parent` is the session that it has forked, and `told`
    are that one's uuids: a fork tells them again, and their bodies are there already."""

    project_id: str
    job_id: UUID
    attempt: UUID
    parent: str | None
    told: Collection[str]


def append(
    conn: Connection,
    writer: Writer,
    session_id: str,
    entries: list[Entry],
    *,
    subpath: str,
    last: Written | None,
    fold: Fold | None,
) -> Written | None:
    """Add entries to the transcript that `last` left; None, with nothing written, if it is another
    case."""
    found, laid = [body(entry) for entry in entries], overlay(entries)
    uuids = [each.uuid for each in found if each.uuid]
    if not entries or len(set(uuids)) < len(uuids):
        return None
    summary = fold(last.summary if last else None, entries) if fold else None
    given = [
        None if entry.get("uuid") in writer.told else compress(each)
        for entry, each in zip(entries, found, strict=True)
    ]
    row = conn.execute(
        """
        select baton_append(
            %(project)s, %(session)s, %(sub)s, %(job)s, %(fence)s, %(parent)s, %(known)s::bigint,
            %(digests)b::bytea[], %(uuids)b::uuid[], %(bodies)b::bytea[], %(overlay)b, %(size)s,
            %(came)b, %(told)s)
        """,
        {
            "project": writer.project_id,
            "session": session_id,
            "sub": subpath,
            "job": writer.job_id,
            "fence": writer.attempt,
            "parent": writer.parent,
            "known": last.batch if last else None,
            "digests": [each.digest for each in found],
            "uuids": [each.uuid for each in found],
            "bodies": given,
            "overlay": laid,
            "size": sum(len(each.json) for each in found),
            "came": batch_digest(found, laid),
            "told": None if summary is None else Json(summary),
        },
    ).fetchone()
    return Written(row[0], summary) if row and row[0] else None
