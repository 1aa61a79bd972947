"""A WebSocket of uvicorn's on `wsproto`, with two things less for each message: uvicorn stops to read the
socket and begins again, and compresses. Voice has 25 messages a second each way."""

from copy import copy

from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
from wsproto.events import BytesMessage, Request, TextMessage

AHEAD = 16  # messages that may wait for their reader before the socket is no longer read
SMALL = 65_536  # bytes of one of them
AUDIO = (
    "/v1/realtime",
    "/v1/calls/",
)  # base64 of sound: compressing it costs more than all else


class Wire(WSProtocol):
    """One connection."""

    def handle_connect(self, event: Request) -> None:
        """Offer no compression where audio comes."""
        if event.target.startswith(AUDIO):
            self.config = copy(self.config)
            self.config.ws_per_message_deflate = False
        super().handle_connect(event)

    def handle_message(self, event: TextMessage | BytesMessage) -> None:
        """Stop to read only where the reader is behind: what is not paused is resumed for nothing."""
        self.read_paused = self.queue.qsize() < AHEAD and len(event.data) < SMALL
        super().handle_message(event)
