"""Where voice clients come in: who they are, which model and session they want."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from config.log import log as logger
from db.live import keys
from gateway import ledger
from gateway.access.expiry import has_ended
from gateway.state import State
from gateway.voice import events
from gateway.voice.desk import Desk
from gateway.voice.ends import Ended, Gone, reason
from gateway.voice.session import Session

SLOW = 10.0  # seconds that an event may take to leave
OFFERED = "openai-insecure-api-key."  # how a browser, which sets no headers, gives its key
SCOPE = "voice"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """What voice has for as long as the application runs."""
    desk = Desk(app.state.baton.pool)
    app.state.desk = desk
    task = asyncio.create_task(desk.writer.run())
    try:
        yield
    finally:
        await desk.writer.drain()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


router = APIRouter(lifespan=lifespan)


@router.websocket("/v1/realtime")
async def realtime(ws: WebSocket) -> None:
    """One session, from its key to its end."""
    offered = ws.scope.get("subprotocols", [])
    await ws.accept(subprotocol="realtime" if "realtime" in offered else None)
    caller = Caller(ws)
    try:
        account = await _account(ws)
        await _serve(caller, Session(ws.app.state.desk, caller, account, *_wanted(ws)))
    except Ended as end:
        logger.info("voice.ended", code=end.code, why=end.reason)
        if end.event is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SLOW):
                    await caller.send(events.text_of(end.event))
        await caller.close(end.code, end.reason)


async def _serve(caller: "Caller", session: Session) -> None:
    """Both until one of them ends. Raises Ended, always."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(caller.watch())
            await session.serve()
    except BaseExceptionGroup as several:
        raise reason(several) from None


async def _account(ws: WebSocket) -> str:
    """Whose key it is. It is asked of the keys alone: a new account has no session yet. Raises Ended."""
    key = _key(ws)
    here: State = ws.app.state.baton
    try:
        async with here.pool.connection() as conn:
            found = await keys.holder(conn, key) if key else None
    except ledger.ERRORS as exc:
        if not ledger.is_away(exc):
            raise
        raise Ended(1013, ledger.why(exc)) from None
    if found is None or SCOPE not in found.scopes:
        raise Ended(4401, "Give a key that counts and has the scope voice.")
    if found.ended:
        message = has_ended(found.ended)
        raise Ended(4401, message, events.error("key_expired", message))
    return found.account


def _key(ws: WebSocket) -> str:
    scheme, _, key = ws.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    offered: list[str] = ws.scope.get("subprotocols", [])
    return next((one.removeprefix(OFFERED) for one in offered if one.startswith(OFFERED)), "")


def _wanted(ws: WebSocket) -> tuple[str, str]:
    """The model, and the session's name or nothing. Raises Ended."""
    model, name = ws.query_params.get("model", ""), ws.query_params.get("session", "")
    if not _fits(model):
        raise Ended(4400, "Say which model: /v1/realtime?model=NAME.")
    if name and not _fits(name):
        raise Ended(4400, "A session's name has up to 200 characters that can be printed.")
    return model, name


def _fits(text: str) -> bool:
    return 0 < len(text) <= 200 and text.isprintable()


class Caller:
    """A client at its WebSocket. Audio comes many times a second: no timer and no lock for each piece."""

    def __init__(self, ws: WebSocket) -> None:
        self._ws = ws
        self._since: float | None = None  # when it was told what has not left yet

    async def receive(self) -> str:
        """What it says next. Raises Gone."""
        message = await self._ws.receive()
        if message["type"] == "websocket.disconnect":
            raise Gone
        text: str | None = message.get("text")
        return text if text is not None else message["bytes"].decode("utf-8", "replace")

    async def send(self, text: str) -> None:
        """Tell it; nothing happens where it has left."""
        if self._ws.client_state is WebSocketState.DISCONNECTED:
            return
        self._since = self._since or time.monotonic()
        try:
            await self._ws.send_text(text)
        except (RuntimeError, WebSocketDisconnect):  # it has left meanwhile
            return
        finally:
            self._since = None

    async def watch(self) -> None:
        """Raises Ended for a reader that is too slow."""
        while self._since is None or time.monotonic() - self._since < SLOW:  # noqa: ASYNC110 - a look is enough
            await asyncio.sleep(SLOW / 10)
        raise Ended(1013, "Too slow: connect again.")

    async def close(self, code: int, reason: str) -> None:
        """Close it, if it is open."""
        if WebSocketState.DISCONNECTED in (self._ws.client_state, self._ws.application_state):
            return
        with contextlib.suppress(RuntimeError, TimeoutError, WebSocketDisconnect, OSError):
            async with asyncio.timeout(SLOW):
                await self._ws.close(code, reason)
