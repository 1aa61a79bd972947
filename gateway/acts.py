"""What both doors do to a job: cancel it, answer it. The plain pool's, in a thread."""

from uuid import UUID

import anyio.to_thread
from psycopg.errors import LockNotAvailable

from db.core.pool import connection
from db.jobs import jobs as rows
from db.jobs import messages
from db.sessions import turns


async def stop(job: UUID) -> None:
    """Cancel it now, or as soon as a transaction that holds it lets go."""

    def work() -> None:
        with connection() as conn:
            try:
                rows.cancel(conn, job)
            except LockNotAvailable:
                messages.revoke(conn, [job])

    await anyio.to_thread.run_sync(work)


async def decide(job: UUID, choice: str) -> bool:
    """Answer the job; false when it waits for no answer."""

    def work() -> bool:
        with connection() as conn:
            return turns.answer(conn, job, choice)

    return await anyio.to_thread.run_sync(work)
