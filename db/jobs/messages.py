"""What Celery's messages leave in the ledger that is no job.

revoked_tasks      a revoke: of a job that is there until it was cancelled, of any other id for a week
refused_messages   a message of which no job was made, and why, for a week
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString
from uuid import UUID

from psycopg import Connection, errors
from psycopg.rows import class_row

from db.jobs import jobs

KEPT = timedelta(days=7)
MOST = 10_000  # refused messages; older ones go before their time
# For which each look asks whether the job is there: of most ids that are revoked there never is one, and a
# look may not cost what was revoked in a week. Later `renew` asks, and obey.
IN_TIME = timedelta(hours=1)
AT_ONCE = 100  # revokes in one look
PATIENCE = "50ms"  # for whoever takes what a cancel needs just then; it is looked at again
PAGE = 500  # rows that are deleted in a transaction
WAIT = "2s"  # for whoever holds a row that is written here
NAME, TEXT = 200, 1000  # longest id, name and sentence that is kept


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message of which no job was made."""

    task_id: str
    task: str
    code: str
    error: str
    times: int
    at: datetime


def revoke(conn: Connection, ids: list[UUID]) -> None:
    """Write down that these jobs are to be cancelled, whether they are there yet or not."""
    with _briefly(conn, WAIT):
        conn.execute(
            """
            insert into revoked_tasks (job_id) select distinct unnest(%s::uuid[])
            on conflict (job_id) do update set at = now()
            """,
            (ids,),
        )


@contextmanager
def _briefly(conn: Connection, patience: str) -> Generator[None]:
    """A transaction that waits for nobody's lock for longer."""
    with conn.transaction():
        conn.execute("select set_config('lock_timeout', %s, true)", (patience,))
        yield


def cancel_revoked(conn: Connection) -> int:
    """Cancel the jobs that were revoked and are there. Returns how many.

    One of which somebody's transaction holds a row, or its project's, is left for the next look:
    nobody is waited for, and it hides none of the others.
    """
    found = conn.execute(
        """
        select job_id from (
            select r.job_id from revoked_tasks r
             cross join lateral (select from jobs j where j.id = r.job_id limit 1) j
             where r.applied_at is null and r.at > now() - %s order by r.at offset 0) revoked
         where baton_hold_chain(job_id) limit %s
        """,
        (IN_TIME, AT_ONCE),
    ).fetchall()
    return sum(_cancel(conn, job_id) for (job_id,) in found)


def _cancel(conn: Connection, job_id: UUID) -> bool:
    try:
        with _briefly(conn, PATIENCE):
            ours = conn.execute(
                """
                update revoked_tasks set applied_at = now()
                 where job_id = (select job_id from revoked_tasks
                                  where job_id = %s and applied_at is null for update skip locked)
                   and baton_hold_chain(job_id)
                """,
                (job_id,),
            ).rowcount
            return bool(ours and jobs.cancel(conn, job_id, patience=PATIENCE))
    except errors.LockNotAvailable:
        return False


def renew(conn: Connection) -> int:
    """Ask anew for what was revoked over an hour ago and is there: nobody ran who could cancel it, or
    somebody held it for so long. Returns how many. It costs an id that was revoked in a week a look-up."""
    return conn.execute(
        """
        update revoked_tasks set at = now()
         where job_id = any (array(
            select r.job_id from revoked_tasks r
             cross join lateral (select from jobs j where j.id = r.job_id limit 1) j
             where r.applied_at is null and r.at <= now() - %s for update of r skip locked))
        """,
        (IN_TIME,),
    ).rowcount


def obey(conn: Connection, job_id: UUID) -> bool:
    """In the transaction that makes the job's row: if it was revoked before, it ends here.
    The relay tells its end. Whether it did."""
    return (
        conn.execute(
            """
            with revoked as (
                update revoked_tasks set applied_at = now()
                 where job_id = %(id)s and applied_at is null
                   and exists (select from jobs where id = %(id)s and state = 'queued'
                                                  and started_at is null)
                returning job_id
            )
            update jobs set state = 'cancelled', finished_at = now(), untold = true,
                   error_class = 'cancelled', error = 'Cancelled on request.'
              from revoked where jobs.id = revoked.job_id
            """,
            {"id": job_id},
        ).rowcount
        == 1
    )


def refuse(conn: Connection, task_id: str, task: str, code: str, error: str) -> None:
    """Write down that the message of this task was refused."""
    with _briefly(conn, WAIT):
        conn.execute(
            """
            insert into refused_messages (task_id, task, code, error) values (%s, %s, %s, %s)
            on conflict (task_id) do update
               set task = excluded.task, code = excluded.code, error = excluded.error,
                   at = now(), times = refused_messages.times + 1
            """,
            (task_id[:NAME], task[:NAME], code, error[:TEXT]),
        )


COLUMNS: LiteralString = "select task_id, task, code, error, times, at from refused_messages "


def refused(conn: Connection, task_id: str) -> Refusal | None:
    """Why no job was made of that task's message, if so."""
    with conn.cursor(row_factory=class_row(Refusal)) as cur:
        return cur.execute(COLUMNS + "where task_id = %s", (task_id[:NAME],)).fetchone()


def newest_refused(
    conn: Connection, *, within: timedelta = KEPT, limit: int = 20
) -> list[Refusal]:
    """The messages that were refused last."""
    with conn.cursor(row_factory=class_row(Refusal)) as cur:
        return cur.execute(
            COLUMNS + "where at > now() - %s order by at desc limit %s", (within, limit)
        ).fetchall()


def clear(conn: Connection, *, most: int = MOST, until: float = float("inf")) -> int:
    """Forget what is a week old, and of what was refused all but the newest, a page at a time.
    None is begun after `until` (monotonic seconds). Returns how many."""
    gone = 0
    for page in (OLD_REVOKES, OLD_REFUSALS):
        went = PAGE
        while went == PAGE and time.monotonic() < until:
            went = conn.execute(page, {"kept": KEPT, "most": most, "page": PAGE}).rowcount
            gone += went
    return gone


OLD_REVOKES: LiteralString = """
    delete from revoked_tasks
     where job_id in (
           select r.job_id from revoked_tasks r
            where r.at < now() - %(kept)s::interval
              and (r.applied_at is not null  -- else a job that is there is still to be cancelled
                   or not exists (select from jobs j where j.id = r.job_id offset 0))
            order by r.at limit %(page)s)"""

OLD_REFUSALS: LiteralString = """
    delete from refused_messages
     where task_id in (
           select task_id from refused_messages
            where at <= greatest(now() - %(kept)s::interval,
                                 (select at from refused_messages order by at desc
                                  offset %(most)s limit 1))
            order by at limit %(page)s)"""
