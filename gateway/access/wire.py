"""A WebSocket of uvicorn's on `wsproto`, with one thing less for each message: uvicorn stops to read the
socket and begins again. Voice has 25 messages a second each way. A message is bounded where sound comes, and
more narrowly where text does. And it ends: uvicorn waits for ever for a client that reads nothing.
"""

import socket

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.events import BytesMessage, Request, TextMessage

AHEAD = 16  # messages that may wait for their reader before the socket is no longer read
SMALL = 65_536  # bytes of one of them
VOICE = ("/v1/realtime", "/v1/calls/")  # sound and pictures
CALLS = "/v1/calls/"
LONGEST = 512 * 1024  # bytes of a message anywhere else, before anybody knows whose it is
UNREAD = (
    256 * 1024
)  # bytes there that the kernel keeps for a reader; left alone, it keeps megabytes
ANSWER = 1.5  # seconds in which a side of a call may answer that it is closed
LAST = 2.0  # seconds for what a client has not read yet when all is over


class Wire(WSProtocol):
    """One connection."""

    def handle_connect(self, event: Request) -> None:
        """Take what it is for as it needs."""
        if not event.target.startswith(VOICE):
            self.buffer.max_length = LONGEST
            own = self.transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNREAD)
        if event.target.startswith(CALLS):
            self.close_timeout = ANSWER
        super().handle_connect(event)

    def handle_message(self, event: TextMessage | BytesMessage) -> None:
        """Stop to read only where the reader is behind: what is not paused is resumed for nothing."""
        self.read_paused = self.queue.qsize() < AHEAD and len(event.data) < SMALL
        super().handle_message(event)

    def keepalive_timeout(self) -> None:
        """It answers no ping: it will read no goodbye either."""
        super().keepalive_timeout()
        self._leave()

    async def run_asgi(self) -> None:
        """Serve it. What it has not read then is not waited for any longer."""
        await super().run_asgi()
        self._leave()

    def _leave(self) -> None:
        self.loop.call_later(self.close_timeout + LAST, self.transport.abort)
