"""What both sides of a call share: the call's row and events, its socket, and how it is closed."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from config.log import log as logger
from db.live import calls
from db.live.calls import OPEN, Call
from gateway import ledger
from gateway.access.limits import TOO_LONG, is_too_long
from gateway.calls.bell import Bell
from gateway.voice import events
from worker.text.storable import plain_data

SLOW = 10.0  # seconds that a frame may take to leave


class Over(Exception):
    """This side is to be closed: with a code, and one sentence."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(eq=False, slots=True)
class Side:
    """A socket of a call."""

    ws: WebSocket
    bell: Bell
    call: str

    async def look(self) -> Call:
        """The call as it stands. Raises Over where there is none."""
        async with self.bell.pool.connection() as conn:
            found = await calls.look(conn, self.call) if _fits(self.call) else None
        if found is None:
            raise Over(4404, "There is no such call.")
        return found

    async def move(self, to: str, *come_from: str, stream: str | None = None) -> bool:
        """Move the call on; whether it was where it should come from."""
        async with self.bell.pool.connection() as conn:
            moved = await calls.move(conn, self.call, to, list(come_from or OPEN), stream)
        self.bell.ring(self.call)
        return moved

    async def end(self, reason: str) -> None:
        """End the call, if it has not ended."""
        async with self.bell.pool.connection() as conn:
            if await calls.end(conn, self.call, reason):
                logger.info("call.ended", call=self.call, reason=reason)
        self.bell.ring(self.call)

    async def note(self, kind: str, body: dict[str, Any]) -> None:
        """Tell the page."""
        async with self.bell.pool.connection() as conn:
            await calls.note(conn, self.call, kind, plain_data(body))
        self.bell.ring(self.call)

    async def receive(self) -> events.Event:
        """The next frame. Raises WebSocketDisconnect, or Over for what is none."""
        message = await self.ws.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text") or ""
        if is_too_long(text):
            raise Over(1009, TOO_LONG)
        found = events.object_of(text)
        if found is None:
            raise Over(4400, "A frame is a JSON object.")
        return found

    async def send(self, text: str) -> None:
        """Raises Over for a reader that is too slow, WebSocketDisconnect where it has left."""
        try:
            async with asyncio.timeout(SLOW):
                await self.ws.send_text(text)
        except TimeoutError:
            raise Over(1013, "Too slow: connect again.") from None
        except RuntimeError as exc:
            raise WebSocketDisconnect(1006) from exc

    async def leave(self, why: list[BaseException]) -> None:
        """Close it for the reasons of what has ended: ours, Postgres', or that the client left."""
        over = next((one for one in why if isinstance(one, Over)), None)
        if over is not None:
            await self.close(over.code, over.reason)
        elif away := next((one for one in why if ledger.is_away(one)), None):
            await self.close(1013, ledger.why(away))
        elif not all(isinstance(one, WebSocketDisconnect) for one in why):
            logger.error("call.failed", call=self.call, exc_info=why[0])
            await self.close(1011, ledger.FAILED)

    async def close(self, code: int, reason: str) -> None:
        """Close it, if it is open."""
        if WebSocketState.DISCONNECTED in (self.ws.client_state, self.ws.application_state):
            return
        with contextlib.suppress(RuntimeError, TimeoutError, WebSocketDisconnect, OSError):
            async with asyncio.timeout(SLOW):
                await self.ws.close(code, reason)


def _fits(call: str) -> bool:
    return 0 < len(call) <= 100 and call.isascii() and call.isprintable()
