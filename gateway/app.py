"""The ASGI application: routes, and what they share for as long as it runs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.websockets import WebSocket

from config import release
from config.settings import settings
from db.core import async_pool
from gateway import pages, problems
from gateway.access import origins
from gateway.access.edge import Edge
from gateway.access.limits import Limits
from gateway.calls import routes as calls
from gateway.feed.doorbell import Doorbell, client
from gateway.feed.feeds import Feeds
from gateway.http import events, health, jobs, projects, tickets
from gateway.http.document import Documented
from gateway.ledger import PATIENCE
from gateway.live.socket import Socket
from gateway.state import State
from gateway.voice import door
from worker.live.tickets import Tickets, from_settings

SOCKETS = (
    *("/v1/live", "/v1/realtime"),
    *("/v1/calls/{call}/frontend", "/v1/calls/{call}/media"),
)
# What a page of another origin may say.
HEADERS = ("Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Last-Event-ID")
MORE = 65_536  # bytes of a body beside its prompt, of which a character may take six


def build() -> FastAPI:
    """The application. Raises BadSettings where it has no secret to sign with."""
    signs = from_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with running(signs) as state:
            app.state.baton = state
            yield

    app = Documented(
        title="Baton",
        version=release.version(),
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(Edge, longest=6 * settings().prompt_limit + MORE)
    if pages_elsewhere := origins.named():
        app.add_middleware(
            CORSMiddleware,
            allow_origins=pages_elsewhere,
            allow_credentials=True,  # their ticket's cookie
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=HEADERS,
            expose_headers=events.HEADERS,
        )
    problems.install(app)
    for room in (health, jobs, projects, events, tickets, pages):
        app.include_router(room.router, responses=problems.RESPONSES)
    app.include_router(door.router)
    app.include_router(calls.router, responses=problems.RESPONSES)

    @app.websocket("/v1/live")
    async def live(ws: WebSocket) -> None:
        await Socket(ws, ws.app.state.baton).serve()

    for place in SOCKETS:
        app.add_api_route(place, problems.upgrade, include_in_schema=False)
    return app


@asynccontextmanager
async def running(signs: Tickets) -> AsyncGenerator[State]:
    """Open what a gateway has, and close it. Postgres may still be away when it begins."""
    pool = async_pool.pool(PATIENCE)
    await pool.open(wait=False)
    plain = client()
    feeds = Feeds(pool, Doorbell(plain))
    task = asyncio.create_task(feeds.run())
    try:
        yield State(pool, feeds, signs, Limits(plain))
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if plain is not None:
            await plain.aclose()
        await pool.close()
