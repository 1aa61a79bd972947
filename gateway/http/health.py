"""Whether this gateway lives, and whether it can serve."""

import anyio.to_thread
from fastapi import APIRouter
from psycopg.errors import InsufficientPrivilege

from db.core import migrate
from db.core.pool import connection
from gateway import ledger
from gateway.http.callers import Here
from gateway.http.routes import got
from gateway.problems import Problem, of_postgres

router = APIRouter(tags=["health"])


@got(router, "/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@got(router, "/readyz")
async def readyz(here: Here) -> dict[str, str]:
    """Postgres answers, and has what this gateway needs. Without Redis it goes on, slower, and says so."""
    try:
        async with here.pool.connection(timeout=2) as conn:
            await conn.execute("select 1")
        if not here.migrated.is_set() and not await anyio.to_thread.run_sync(_migrated):
            raise Problem(503, "not_migrated", ledger.MIGRATE)
    except ledger.ERRORS as exc:
        raise of_postgres(exc) from exc
    here.migrated.set()
    rings = here.feeds.rings
    return {
        "status": "ok",
        "redis": "ok" if rings else "away: events are looked for twice a second",
    }


def _migrated() -> bool:
    """Whether nothing is pending; true where this role may not look."""
    with connection() as conn:
        try:
            return not migrate.pending(conn)
        except InsufficientPrivilege:
            return True
