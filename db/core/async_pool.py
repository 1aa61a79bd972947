"""A small pool of async connections, for the gateway and the egress proxy, each as
db/core/connections.py wants it."""

from psycopg import Error
from psycopg_pool import AsyncConnectionPool

from config.settings import settings
from db.core.async_connections import AsyncOwn
from db.core.connections import LIVENESS, spoken

SIZE = 8
WAIT = 5.0  # seconds for which a connection is waited for; then Postgres counts as away

Pool = AsyncConnectionPool[AsyncOwn]


def pool(patience: str | None = None) -> Pool:
    """The pool, not yet open: it opens when the application starts. With `patience`, such as `2s`, its
    connections wait for no lock for longer; then LockNotAvailable is raised."""

    async def begin(conn: AsyncOwn) -> None:
        await conn.begin(patience)

    async def check(conn: AsyncOwn) -> None:
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
        connection_class=AsyncOwn,
        min_size=1,
        max_size=SIZE,
        timeout=WAIT,
        open=False,
        configure=begin,
        check=check,
        reconnect_timeout=WAIT,
        kwargs={"autocommit": True, "prepare_threshold": 0, **LIVENESS},
    )
    return made
