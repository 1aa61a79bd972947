"""One session, as an operator looks at it: the registry, the store, and who tried to resume it."""

from typing import Any

from psycopg import Connection

from db.operations import reports
from db.transcripts import listings
from worker.session import ladder


def describe(conn: Connection, session_id: str) -> dict[str, Any] | None:
    """All that is known of the session; None if the registry does not have it.

    `sound`: it is whole in the store and can be resumed; else `problem` says why not.
    """
    row = reports.session(conn, session_id)
    if row is None:
        return None
    stored = listings.listed(conn, row["project_id"], session_id)
    own = [one for one in stored if not one.subpath]
    problem = ladder.look(conn, row["project_id"], session_id).reason
    return {
        "registry": row,
        "in_store": bool(own),
        "sound": problem is None,
        "problem": problem,
        "entries": sum(one.entries for one in own),
        "bytes": sum(one.bytes for one in own),
        "resume_attempts": reports.attempts_on(conn, session_id),
    }
