"""Whether this gateway lives, and whether it can serve."""

import psycopg
import psycopg_pool
from fastapi import APIRouter

from gateway.http.callers import Here
from gateway.problems import Problem

router = APIRouter(tags=["health"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz")
async def readyz(here: Here) -> dict[str, str]:
    """Postgres answers. Without Redis it goes on, slower, and says so."""
    try:
        async with here.pool.connection(timeout=2) as conn:
            await conn.execute("select 1")
    except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
        raise Problem(503, "postgres_away", "Postgres does not answer.") from exc
    rings = here.feeds.rings
    return {
        "status": "ok",
        "redis": "ok" if rings else "away: events are looked for twice a second",
    }
