"""What holds of every request and every answer: how long a body may be, and that no browser guesses
what it is."""

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOO_LONG = "The body is longer than any request: shorten the prompt"


class Edge:
    """Around the application. A body is refused as soon as it is known to be too long, before
    anybody is asked who sends it."""

    def __init__(self, app: ASGIApp, longest: int) -> None:
        self.app, self.longest = app, longest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "")
        coming = int(told) if told.isdecimal() and len(told) < 20 else 0
        come = 0

        async def counted() -> Message:
            nonlocal come
            if coming > self.longest:
                raise HTTPException(413, TOO_LONG)
            message = await receive()
            come += len(message.get("body", b""))
            if come > self.longest:
                raise HTTPException(413, TOO_LONG)
            return message

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("X-Content-Type-Options", "nosniff")
            await send(message)

        await self.app(scope, counted, marked)
