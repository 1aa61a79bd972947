"""One connection to the provider, and how the provider says no.

A link is what its `async with` holds: whoever is cancelled leaves the block, and the socket is closed.
Nothing of an old link lives in a new one.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import quote, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI

from config.settings import settings
from gateway.voice import events
from gateway.voice.events import Event, part, said

DIAL = 10.0  # seconds until it must be open
ANSWER = 10.0  # seconds for an answer that is waited for
LARGEST = 16 * 2**20  # bytes of one event
HERE = ("127.0.0.1", "::1", "localhost")  # never by way of a proxy
Wanted = Callable[[Event], bool]
Others = Callable[[str], Awaitable[None]]


class Lost(Exception):
    """The link is not there, or not any more; another may be opened."""


class Refused(Exception):
    """The provider will not have us; `event` says why, and nothing is tried again."""

    def __init__(self, event: Event) -> None:
        super().__init__(said(part(event, "error"), "code"))
        self.event = event


@dataclass(eq=False, slots=True)
class Link:
    """An open one."""

    ws: ClientConnection
    spoke: bool = False  # since this was last looked at
    retired: bool = False  # closed by us, for a new one

    async def send(self, text: str) -> None:
        """Raises ConnectionClosed, as all that follow."""
        await self.ws.send(text)

    async def receive(self) -> str:
        """The next event, as it came."""
        return await self.ws.recv(decode=True)

    async def retire(self) -> None:
        """Close it: whoever receives hears the rest, and then its end."""
        self.retired = True
        await self.ws.close()

    async def until(self, wanted: Wanted, others: Others) -> str | None:
        """The first event that is wanted, as it came; those before it go to `others`. None: it did
        not come in time."""
        try:
            async with asyncio.timeout(ANSWER):
                while True:
                    text = await self.receive()
                    event = events.read(text)
                    if event is not None and wanted(event):
                        return text
                    await others(text)
        except TimeoutError:
            return None


@asynccontextmanager
async def opened(model: str) -> AsyncGenerator[Link]:
    """A link until the block ends. Raises Lost or Refused where there is none."""
    key = settings().openai_api_key.get_secret_value()
    url = address(settings().realtime_url, model)
    try:
        ws = await connect(
            url,
            proxy=None if urlsplit(url).hostname in HERE else True,
            additional_headers={"Authorization": f"Bearer {key}"} if key else {},
            open_timeout=DIAL,
            close_timeout=1,
            max_size=LARGEST,
            compression=None,
        )
    except InvalidStatus as exc:
        raise _refusal(exc) from exc
    except (OSError, InvalidHandshake, InvalidURI, TimeoutError) as exc:
        raise Lost(type(exc).__name__) from exc
    async with ws:
        yield Link(ws)


def address(url: str, model: str) -> str:
    """Where a session with the model is opened. `url` may lack its end, `/realtime` or `/v1/realtime`."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/realtime"):
        path = f"{path or '/v1'}/realtime"
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    query = "&".join(filter(None, [parts.query, f"model={quote(model)}"]))
    return urlunsplit((scheme, parts.netloc, path, query, ""))


def _refusal(exc: InvalidStatus) -> Exception:
    """What a status means: the provider's own words where it has some."""
    status = exc.response.status_code
    try:
        told = json.loads(exc.response.body or b"")
    except (ValueError, RecursionError):
        told = None
    inner = part(told, "error") if events.is_object(told) else {}
    code = said(inner, "code") or {401: "invalid_api_key", 404: "model_not_found"}.get(
        status, ""
    )
    message = said(inner, "message") or f"The provider refuses the connection ({status})."
    if code in events.FATAL or status in (400, 401, 403, 404):
        kind = said(inner, "type") or "invalid_request_error"
        return Refused(events.error(code or "provider_refused", message, kind=kind))
    return Lost(f"HTTP {status}")
