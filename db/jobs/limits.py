"""Credentials that may not be used now. A credential is named by a hash, never by itself."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

from db.jobs import outbox
from db.jobs.jobs import NEVER


@dataclass(frozen=True, slots=True)
class Limit:
    """`until` is an instant; `jobs.NEVER` means until somebody clears it."""

    credential: str
    until: datetime
    reason: str
    created_at: datetime


def impose(
    conn: Connection,
    credential: str,
    *,
    wait: timedelta | None,
    reason: str,
    until: datetime | None = None,
) -> tuple[datetime, bool]:
    """Forbid the credential until that moment, else for `wait` (None: until it is cleared);
    returns the moment it ends, and whether it was allowed until now: of all who find it out at
    once, one hears so. One that is over already still means a second, and none is later than
    NEVER: programs could not read it."""
    row = conn.execute(
        """
        insert into limits as l (credential, until, reason)
        values (%(credential)s,
                least(case when %(until)s::timestamptz is not null
                           then greatest(%(until)s, now() + interval '1 s')
                           else now() + %(wait)s::interval end, %(never)s), %(reason)s)
        on conflict (credential) do update  -- who comes second has waited for the first's commit
           set until = greatest(l.until, excluded.until), reason = excluded.reason,
               created_at = case when l.until <= now() then now() else l.created_at end
        returning until, created_at = now()
        """,
        {
            "credential": credential,
            "until": until,
            "wait": wait,
            "never": NEVER,
            "reason": reason,
        },
    ).fetchone()
    assert row
    return row[0], row[1]


def standing(conn: Connection, credential: str) -> Limit | None:
    """The limit that is in force for the credential, if any."""
    with conn.cursor(row_factory=class_row(Limit)) as cur:
        return cur.execute(
            "select * from limits where credential = %s and until > now()", (credential,)
        ).fetchone()


def in_force(conn: Connection) -> list[Limit]:
    """Every limit in force, the oldest first."""
    with conn.cursor(row_factory=class_row(Limit)) as cur:
        return cur.execute(
            "select * from limits where until > now() order by created_at"
        ).fetchall()


def clear(conn: Connection, credential: str) -> int:
    """The credential works again: lift its limit, and let its jobs go on. Returns how many."""
    with conn.transaction():
        conn.execute("delete from limits where credential = %s", (credential,))
        return outbox.release(conn, credential)


def park_waiting(
    conn: Connection, job_id: UUID, credential: str, *, silent_after: timedelta
) -> None:
    """Set a job that waits aside until the credential's limit ends; it keeps its place in its lane.

    Where another worker's credential works the job only waits for another message. Nothing is
    done if the limit was lifted meanwhile: nobody would let the job go on. Nor if the job waits
    for a later time: it would be due when the limit is lifted.
    """
    conn.execute(
        """
        with the_limit as (  -- held: whoever lifts it does so before us, or sees the job parked
            select until, baton_can_work(%(silent_after)s) as elsewhere
              from limits where credential = %(credential)s for share
        )
        update jobs
           set state = case when elsewhere then 'queued' else 'parked' end,
               run_at = case when elsewhere then run_at else until end,
               publish_after = case when elsewhere then now() + interval '1 second'
                                    else until end,
               published = 0,  -- whoever took the message could not work: that is no answer
               credential = case when elsewhere then null else %(credential)s end,
               published_at = null, ready = false, scheduled = false
          from the_limit where id = %(id)s and state in ('queued', 'parked') and run_at <= now()
        """,
        {"id": job_id, "credential": credential, "silent_after": silent_after},
    )
