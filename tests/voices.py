"""A gateway with a provider of voice, and who speaks to it: the official client.

The fixtures are for modules to import: each has a gateway, a database and a provider of its own.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from psycopg import Connection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from db.live import keys
from dev.standin.realtime.server import Provider, provider
from tests.gateways import Gateway, gateway
from tests.gateways import ledger as ledger
from tests.gateways import url as url
from tests.waiting import wait_until

Event = dict[str, Any]
MODEL = "gpt-realtime"
PROVIDER_KEY = "sk-of-the-tests"
ROW = "select data, items, updated_at from sessions where account_id = %s and session_id = %s"


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with provider(key=PROVIDER_KEY) as one:
        yield one


@pytest.fixture
def there(running: Provider, at: Gateway) -> Iterator[Provider]:
    """The provider, as if nobody had been there before. A link that the gateway opens for somebody
    whose end it has not noticed yet would be counted as the next test's."""
    wait_until(
        lambda: not (at.callers or running.open_links),
        description="the last test's connections to be closed",
    )
    running.cues.waiting.clear()
    running.links.clear()
    running.used, running.pace, running.asked = None, 0.0, 0
    yield running
    running.cues.waiting.clear()


@pytest.fixture(scope="module")
def at(
    url: str, redis_server: str, running: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    log = tmp_path_factory.mktemp("gateway") / "log"
    with gateway(url, redis_server, log, **environment(running)) as one:
        yield one


@pytest.fixture(scope="module")
def key(url: str) -> str:
    """One of acme's, with the scope voice."""
    return key_of(url, "acme")


def environment(running: Provider) -> dict[str, str]:
    """What a gateway must know of its provider."""
    return {"BATON_REALTIME_URL": running.url, "OPENAI_API_KEY": PROVIDER_KEY}


def row(ledger: Connection, name: str, account: str = "acme") -> tuple[Any, list[Event], Any]:
    """The configuration, the items and the time that are kept of a session; None, [] where nothing is."""
    return ledger.execute(ROW, (account, name)).fetchone() or (None, [], None)


def instructions(ledger: Connection, name: str, account: str = "acme") -> str | None:
    """Those that are kept."""
    data = row(ledger, name, account)[0]
    return data.get("session", {}).get("instructions") if data else None


async def kept(ledger: Connection, name: str, wanted: str) -> None:
    """Wait until the configuration with these instructions is kept."""
    await holds(lambda: instructions(ledger, name) == wanted, f"{wanted!r} to be kept")


async def holds(what: Callable[[], object], description: str) -> None:
    """Wait until it holds, beside the event loop."""
    await asyncio.to_thread(wait_until, what, description=description)


def key_of(database_url: str, account: str, *scopes: str) -> str:
    """A new key of the account, with the scope voice unless others are told."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        return keys.create(conn, account, "tests", list(scopes or ("voice",)))[0]


def new_name(what: str = "s") -> str:
    return f"{what}-{uuid4().hex[:10]}"


class Voice:
    """A connection of the official client, and all that came over it."""

    def __init__(self, connection: AsyncRealtimeConnection) -> None:
        self.connection = connection
        self.got: list[Event] = []

    async def say(self, kind: str, **more: Any) -> None:
        """Each event has an id, by which it is told from what the relay says itself."""
        told = {"type": kind, "event_id": f"said_{uuid4().hex[:8]}", **more}
        await self.connection.send_raw(json.dumps(told))

    async def hear(self, *, within: float = 60.0) -> Event:
        """The next event, as the client has read it."""
        async with asyncio.timeout(within):
            event = json.loads(await self.connection.recv_bytes())
        self.got.append(event)
        return event

    async def until(
        self,
        kind: str,
        where: Callable[[Event], bool] = lambda _: True,
        *,
        within: float = 60.0,
    ) -> Event:
        """The next event of that type; those before it are kept too."""
        async with asyncio.timeout(within):
            while True:
                event = await self.hear(within=within)
                if event["type"] == kind and where(event):
                    return event

    async def state(self, state: str) -> Event:
        """Until the gateway says this of the provider."""
        return await self.until("baton.provider", lambda event: event["state"] == state)

    async def configure(self, **session: Any) -> Event:
        """Send an update, until it is accepted."""
        await self.say("session.update", session={"type": "realtime", **session})
        return await self.until("session.updated")

    async def write(self, text: str, **more: Any) -> Event:
        """Put what a user writes into the conversation, until it is there."""
        content = [{"type": "input_text", "text": text}]
        await self.say("conversation.item.create",
                       item={"type": "message", "role": "user", "content": content, **more})  # fmt: skip
        return await self.until("conversation.item.done")

    async def ask(self, text: str) -> Event:
        """Write it and have it answered; the response as it was done."""
        await self.write(text)
        await self.say("response.create", response={"output_modalities": ["text"]})
        return (await self.until("response.done"))["response"]

    async def closed(self, *, within: float = 60.0) -> tuple[int, str]:
        """The code and the reason that the gateway closes it with."""
        with pytest.raises(ConnectionClosed) as told:  # noqa: PT012 - until it is
            async with asyncio.timeout(within):
                while True:
                    await self.hear(within=within)
        assert told.value.rcvd, "it was closed, not cut"
        return told.value.rcvd.code, told.value.rcvd.reason

    def kinds(self) -> list[str]:
        return [event["type"] for event in self.got]


@asynccontextmanager
async def voice(
    at: Gateway, key: str, session: str | None = None, **query: str
) -> AsyncGenerator[Voice]:
    """The official client's connection until the block ends; its first event has not been read."""
    client = AsyncOpenAI(
        api_key=key,
        base_url=f"{at.url}/v1",
        websocket_base_url=at.url.replace("http", "ws") + "/v1",
    )
    extra = ({"session": session} if session else {}) | query
    async with (
        client,
        client.realtime.connect(
            model=MODEL,
            extra_query=extra,
            websocket_connection_options={"proxy": None},  # pyright: ignore[reportArgumentType]
        ) as connection,
    ):
        yield Voice(connection)


async def closed_with(at: Gateway, path: str, key: str | None) -> tuple[int, str]:
    """How a plain WebSocket is closed there that says nothing."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = at.url.replace("http", "ws") + path
    async with connect(url, additional_headers=headers, proxy=None) as ws:
        with pytest.raises(ConnectionClosed) as told:  # noqa: PT012 - until it is
            async with asyncio.timeout(60):
                while True:
                    await ws.recv()
    assert told.value.rcvd
    return told.value.rcvd.code, told.value.rcvd.reason
