"""A small pool of async connections, for the gateway and the egress proxy, each as
db/core/connections.py wants it."""

from typing import Any

from psycopg import AsyncConnection, Error, IsolationLevel
from psycopg_pool import AsyncConnectionPool

from config.settings import settings
from db.core.connections import FOR_THE_SESSION, LIVENESS, spoken

SIZE = 8
WAIT = 5.0  # seconds for which a connection is waited for; then Postgres counts as away

Pool = AsyncConnectionPool[AsyncConnection[Any]]


def pool() -> Pool:
    """The pool, not yet open: it opens when the application starts."""

    async def check(conn: AsyncConnection[Any]) -> None:
        """Raises for a connection that has died: its server is asked only where something has come
        of it while nobody waited. Then all are made anew (db/core/pool.py says why)."""
        if not spoken(conn.fileno()):
            return
        try:
            await AsyncConnectionPool.check_connection(conn)
        except Error:
            await made.drain()
            raise

    made: Pool = AsyncConnectionPool(
        settings().database_url.get_secret_value(),
        min_size=1,
        max_size=SIZE,
        timeout=WAIT,
        open=False,
        configure=_begin,
        check=check,
        reconnect_timeout=WAIT,
        kwargs={"autocommit": True, "prepare_threshold": 0, **LIVENESS},
    )
    return made


async def _begin(conn: AsyncConnection[Any]) -> None:
    await conn.set_isolation_level(IsolationLevel.READ_COMMITTED)
    answer = await conn.execute(FOR_THE_SESSION, (conn.info.backend_pid,), prepare=False)
    if not answer.rowcount:  # a pooler is between: nothing is prepared for longer
        conn.prepare_threshold = None
