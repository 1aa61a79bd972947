"""uvicorn's HTTP on `httptools`, with the bound that it lacks: a head, or a trailer, that does not end is
collected for ever."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST = 65_536  # bytes between two things that a request tells: its head, a piece of its body, its end


class Head(HttpToolsProtocol):
    """One connection."""

    _collected = 0  # bytes since then

    def data_received(self, data: bytes) -> None:
        """Refuse what only grows."""
        self._collected += len(data)
        super().data_received(data)
        if self._collected > LONGEST and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._collected = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body has come."""
        self._collected = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request has ended."""
        self._collected = 0
        super().on_message_complete()
