"""The stand-in as a server on loopback, in a thread of its own: `with provider() as one`.

with provider(key="sk-test") as one:
    one.cue("close", on="response.create", code=1001)
    ...                                      # a gateway with BATON_REALTIME_URL=one.url
    assert one.links[-1].kinds()[0] == "session.update"
"""

import asyncio
import json
from contextlib import suppress
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from dev.standin.loop_thread import LoopThread
from dev.standin.realtime.cues import Cue, Cues, Kind
from dev.standin.realtime.link import Link

HOST = "127.0.0.1"
LARGEST = 16 * 2**20


class Provider:
    """A server with its links, the oldest first. `key` is the one that counts; empty: any."""

    def __init__(self, *, key: str, port: int, pace: float, used: int | None) -> None:
        self.key, self.port, self.pace, self.used = key, port, pace, used
        self.cues = Cues()
        self.links: list[Link] = []
        self.asked = 0  # connections that were asked for, those that were refused among them
        self._server: Server | None = None
        self._thread: LoopThread | None = None

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.port}/v1/realtime"

    @property
    def open_links(self) -> list[Link]:
        """Those that are open."""
        return [link for link in self.links if link.open]

    def cue(self, kind: Kind, **more: Any) -> None:
        """Let something go wrong: see cues.Cue."""
        self.cues.waiting.append(Cue(kind, **more))

    def close_all(self, code: int = 1001) -> None:
        """Close every open link now; 1006: cut it."""
        for link in self.open_links:
            self.close(link, code)

    def close(self, link: Link, code: int = 1001) -> None:
        """Close the link now; 1006: cut it."""
        assert self._thread
        if code == 1006:
            self._thread.loop.call_soon_threadsafe(link.ws.transport.abort)
        else:
            asyncio.run_coroutine_threadsafe(link.ws.close(code), self._thread.loop)

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve,
            HOST,
            self.port,
            process_request=self._look,
            max_size=LARGEST,
            compression=None,
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    def __enter__(self) -> Self:
        self._thread = LoopThread("provider")
        self._thread.do(self.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._thread
        self._thread.do(self.__aexit__(None, None, None))
        self._thread.end()

    def _look(self, _: ServerConnection, request: Request) -> Response | None:
        """Whether this one may: an answer where it may not."""
        self.asked += 1
        for cue in self.cues.at("connect", "status"):
            return _answer(int(cue.code), "server_error", "provider_away", cue.message)
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.key and given != self.key:
            return _answer(401, "invalid_request_error", "invalid_api_key",
                           "Incorrect API key provided.")  # fmt: skip
        if not _model(request.path):
            return _answer(400, "invalid_request_error", "missing_model",
                           "You must provide a model parameter.")  # fmt: skip
        return None

    async def _serve(self, ws: ServerConnection) -> None:
        assert ws.request
        link = Link(ws, self, _model(ws.request.path))
        self.links.append(link)
        with suppress(ConnectionClosed):
            await link.serve()


def _model(path: str) -> str:
    return parse_qs(urlsplit(path).query).get("model", [""])[0]


def _answer(status: int, kind: str, code: str, message: str) -> Response:
    body = json.dumps(
        {"error": {"type": kind, "code": code, "message": message, "param": None}}
    ).encode()
    headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body))})
    return Response(status, HTTPStatus(status).phrase, headers, body)


def provider(
    *, key: str = "", port: int = 0, pace: float = 0.0, used: int | None = None
) -> Provider:
    """A stand-in provider, to be entered with `with` or `async with`.

    `pace` is the time between two pieces of an answer in seconds, `used` what each response uses in
    tokens (None: about one a word).
    """
    return Provider(key=key, port=port, pace=pace, used=used)
