"""What a producer's own role does with jobs that are there: it may write no table, and calls
functions that have their owner's rights, for the user of its connection (db/functions/producers.sql)."""

from uuid import UUID

from psycopg import Connection


def is_one(conn: Connection) -> bool:
    """Whether this connection is a producer's: of a role that may not change jobs."""
    row = conn.execute("select not has_table_privilege('jobs', 'update')").fetchone()
    return row == (True,)


def cancel(conn: Connection, job_id: UUID) -> bool:
    """Have the job cancelled, and what follows in its chain; whether something of it was left."""
    return conn.execute("select baton_cancel(%s)", (job_id,)).fetchone() == (True,)


def again(conn: Connection, job_id: UUID, *, fresh: bool, key: str | None) -> UUID | None:
    """The new job; None if there is no such job of the user's, or it has not ended."""
    row = conn.execute("select baton_retry(%s, %s, %s)", (job_id, fresh, key)).fetchone()
    return row[0] if row else None
