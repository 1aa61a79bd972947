"""What both doors do to a job: cancel it, answer it, ask for it once more. The plain pool's, in a thread;
a lock is waited for as long as a client can wait."""

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread
from psycopg import Connection
from psycopg.errors import LockNotAvailable

from db.core.pool import connection
from db.jobs import jobs as rows
from db.jobs import messages
from db.sessions import turns
from gateway.ledger import PATIENCE
from gateway.state import State
from worker import client

Got = TypeVar("Got")


async def stop(here: State, job: rows.Job) -> None:
    """Cancel it now, or as soon as a transaction that holds it lets go."""

    def work(conn: Connection) -> None:
        try:
            rows.cancel(conn, job.id, patience=PATIENCE)
        except LockNotAvailable:
            messages.revoke(conn, [job.id])

    await _done(here, job.user_id, work)


async def decide(here: State, job: rows.Job, choice: str) -> bool:
    """Answer the job; false when it waits for no answer."""
    return await _done(here, job.user_id, lambda conn: turns.answer(conn, job.id, choice))


async def again(here: State, job: rows.Job, *, fresh: bool, key: str | None) -> rows.Job | None:
    """Ask for it once more; None where it has not ended. Raises Refused."""
    return await _done(
        here, job.user_id, lambda conn: client.retry(conn, job.id, fresh=fresh, key=key)
    )


async def _done(here: State, user: str, work: Callable[[Connection], Got]) -> Got:
    def inside() -> Got:
        with connection() as conn:
            if conn.patience != PATIENCE:  # said once, for as long as this process has it
                conn.wait_at_most(PATIENCE)
            return work(conn)

    async with here.acts.of(user):
        return await anyio.to_thread.run_sync(inside)
