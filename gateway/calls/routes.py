"""/v1/calls: make a call, look at it, end it, reset all; and where its page and its telephone come in."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.websockets import WebSocket

from config.log import log as logger
from config.settings import settings
from db.live import calls
from gateway.calls import config, frontend, twilio
from gateway.calls.bell import Bell
from gateway.calls.media import Media
from gateway.calls.sides import Side
from gateway.http.callers import Caller, Who
from gateway.http.routes import got
from gateway.problems import Problem, not_found
from gateway.voice.shape import Misshapen


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """What calls have for as long as the application runs."""
    app.state.bell = Bell(app.state.baton.pool)
    task = asyncio.create_task(app.state.bell.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


router = APIRouter(prefix="/v1/calls", tags=["calls"], lifespan=lifespan)


class CallAsk(BaseModel):
    """A new call. Without a configuration it waits for its page's."""

    model_config = ConfigDict(extra="forbid")

    config: dict[str, Any] | None = None


class CallMade(BaseModel):
    """Where its page and its telephone connect. Who knows the addresses may."""

    call: str
    frontend_url: str
    media_url: str


class EndAsk(BaseModel):
    """Why it ends."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field("ended", max_length=200, pattern=r"^[\w .,:'-]+$")


class CallShown(BaseModel):
    """A call as it stands."""

    call: str
    status: str
    reason: str | None
    stream_sid: str | None
    config_version: int
    applied_version: int


class Reset(BaseModel):
    """How many calls were ended, and how many of them were in which state."""

    ended: int
    states: dict[str, int]


def _of_scope(scope: str) -> Any:
    async def check(who: Who) -> Caller:
        if who.account is None or scope not in who.scopes:
            raise Problem(403, "forbidden", f"This needs a key with the scope {scope}.")
        return who

    return Depends(check)


Speaker = Annotated[Caller, _of_scope("voice")]
Operator = Annotated[Caller, _of_scope("operate")]


async def _bell(request: Request) -> Bell:
    return request.app.state.bell


Ringing = Annotated[Bell, Depends(_bell)]


@router.post("", status_code=201)
async def make(
    request: Request, bell: Ringing, who: Speaker, asked: CallAsk | None = None
) -> CallMade:
    """Make a call. It shares nothing with the last."""
    given = asked.config if asked else None
    try:
        wanted = None if given is None else config.checked(given)
    except Misshapen as exc:
        raise Problem(422, exc.code, exc.message, field=exc.param) from None
    async with bell.pool.connection() as conn:
        name = await calls.create(conn, who.account or "", wanted, settings().calls_open)
    if name is None:
        raise Problem(
            429, "too_many_calls", f"{settings().calls_open} calls are open: end one first.",
            headers={"Retry-After": "30"}, retry_after=30,
        )  # fmt: skip
    path = f"/v1/calls/{name}"
    return CallMade(
        call=name,
        frontend_url=twilio.address(request, f"{path}/frontend"),
        media_url=twilio.address(request, f"{path}/media"),
    )


@router.post("/reset")
async def reset(bell: Ringing, who: Operator) -> Reset:
    """End every call of the account, whatever gateway it is at."""
    async with bell.pool.connection() as conn:
        ended = await calls.end_all(conn, who.account or "")
    for call in ended:
        bell.ring(call)
    return Reset(ended=len(ended), states=dict(Counter(ended.values())))


@got(router, "/{call}")
async def look(bell: Ringing, who: Speaker, call: str) -> CallShown:
    """The call as it stands."""
    found = await _mine(bell, who, call)
    return CallShown(**{name: getattr(found, name) for name in CallShown.model_fields})


@router.post("/{call}/end")
async def end(bell: Ringing, who: Speaker, call: str, why: EndAsk | None = None) -> CallShown:
    """End the call. Ended once more it is as it was."""
    await _mine(bell, who, call)
    async with bell.pool.connection() as conn:
        reason = why.reason if why else "ended"
        if await calls.end(conn, call, reason):
            logger.info("call.ended", call=call, reason=reason)
    bell.ring(call)
    return await look(bell, who, call)


async def _mine(bell: Bell, who: Caller, call: str) -> calls.Call:
    async with bell.pool.connection() as conn:
        found = await calls.look(conn, call) if call.isascii() and call.isprintable() else None
    if found is None or found.account_id != who.account:
        raise not_found("call")
    return found


@router.websocket("/{call}/frontend")
async def of_page(ws: WebSocket, call: str) -> None:
    """The page's side."""
    await frontend.serve(Side(ws, ws.app.state.bell, call))


@router.websocket("/{call}/media")
async def of_telephone(ws: WebSocket, call: str) -> None:
    """The telephone's side."""
    await Media(Side(ws, ws.app.state.bell, call), ws.app.state.desk).serve()
