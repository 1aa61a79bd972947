"""What Celery's messages leave in the ledger that is no job.

revoked_tasks      a revoke, until the job that the task is was cancelled, or for a week
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
IN_TIME = timedelta(hours=1)  # for which a job's row is waited for that another than us makes
AT_ONCE = 100  # revokes in one look
PATIENCE = "50ms"  # for whoever holds what a cancel needs; it is looked at again
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

    One that somebody's transaction holds is left for the next look: nobody is waited for.
    """
    found = conn.execute(
        """
        select r.job_id from revoked_tasks r join jobs j on j.id = r.job_id
         where r.applied_at is null and r.at > now() - %s order by r.at limit %s
           for update of j skip locked
        """,
        (IN_TIME, AT_ONCE),
    ).fetchall()
    return sum(_cancel(conn, job_id) for (job_id,) in found)


def _cancel(conn: Connection, job_id: UUID) -> bool:
    try:
        with _briefly(conn, PATIENCE):
            free = conn.execute(
                "select from jobs where id = %s for update skip locked", (job_id,)
            ).rowcount
            ours = (
                free
                and conn.execute(
                    """
                update revoked_tasks set applied_at = now()
                 where job_id = %s and applied_at is null
                """,
                    (job_id,),
                ).rowcount
            )
            return bool(ours and jobs.cancel(conn, job_id, patience=PATIENCE))
    except errors.LockNotAvailable:
        return False


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
     where job_id in (select job_id from revoked_tasks where at < now() - %(kept)s::interval
                       order by at limit %(page)s)"""

OLD_REFUSALS: LiteralString = """
    delete from refused_messages
     where task_id in (
           select task_id from refused_messages
            where at <= greatest(now() - %(kept)s::interval,
                                 (select at from refused_messages order by at desc
                                  offset %(most)s limit 1))
            order by at limit %(page)s)"""
