"""One connection of an agent's: HTTP/1.1 by h11, and each part of an answer sent as it comes.

A client that goes while it is answered is noticed, so that nothing is asked for that nobody reads.
"""

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import h11

from egress.answers import Refused

CHUNK = 64 * 1024  # bytes
PATIENCE = 60.0  # seconds between two requests of a connection, and for the head of one
HEAD = 64 * 1024  # bytes of a request's head
LARGEST = 33 * 2**20  # bytes of a request's body; the API takes 32 MB

Headers = list[tuple[bytes, bytes]]


class Gone(Exception):
    """The client has closed its end."""


class Wire:
    """A connection. Raises h11.RemoteProtocolError for what is no HTTP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
        self.ended = False  # the client sends no more

    async def request(self) -> h11.Request | None:
        """The next request; None: there is none."""
        if self.http.our_state is h11.MUST_CLOSE or self.http.their_state is h11.MUST_CLOSE:
            return None
        if self.http.our_state is h11.DONE:
            self.http.start_next_cycle()
        async with asyncio.timeout(PATIENCE):
            event = await self._event()
        return event if isinstance(event, h11.Request) else None

    async def body(self) -> bytes:
        """The body of the request. Raises Refused when it is larger than the API takes."""
        if self.http.they_are_waiting_for_100_continue:
            await self.send(h11.InformationalResponse(status_code=100, headers=[]))
        parts, size = list[bytes](), 0
        while isinstance(event := await self._event(), h11.Data):
            parts.append(bytes(event.data))
            size += len(event.data)
            if size > LARGEST:
                raise Refused(413, "The request is too large.", "request_too_large")
        return b"".join(parts)

    async def send(self, event: h11.Event) -> None:
        """Send a part of the answer."""
        if data := self.http.send(event):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self, response: h11.Response, body: bytes) -> None:
        """A whole answer, once the request is read: who closes with data unread is not heard."""
        if self.http.their_state is h11.SEND_BODY and not await self._passed_over():
            headers = [*response.headers, (b"connection", b"close")]
            response = h11.Response(status_code=response.status_code, headers=headers)
        await self.send(response)
        await self.send(h11.Data(data=body))
        await self.send(h11.EndOfMessage())

    async def _passed_over(self) -> bool:
        """Read the rest of the request; whether that was all of it."""
        if self.http.they_are_waiting_for_100_continue:
            return False
        size = 0
        while isinstance(event := await self._event(), h11.Data) and size < LARGEST:
            size += len(event.data)
        return isinstance(event, h11.EndOfMessage)

    async def while_there(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, or leave it as soon as the client has gone. Raises Gone.

        The request has been read to its end: what comes now is the next one's beginning.
        """
        doing = asyncio.ensure_future(work)
        hearing = asyncio.ensure_future(self.reader.read(CHUNK))
        try:
            await asyncio.wait({doing, hearing}, return_when=asyncio.FIRST_COMPLETED)
            if hearing.done():
                self._receive(hearing.result())
                if self.ended and not doing.done():
                    raise Gone
            await doing
        finally:
            await _cancelled(hearing)
            await _cancelled(doing)

    def _receive(self, data: bytes) -> None:
        """Hand it to h11, to which no data is the end."""
        self.ended = self.ended or not data
        self.http.receive_data(data)

    async def _event(self) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            self._receive(await self.reader.read(CHUNK))
        return event

    def break_off(self) -> None:
        """Close it so that the client knows that the answer is not whole."""
        self.writer.transport.abort()


async def _cancelled(task: "asyncio.Future[Any]") -> None:
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
