"""Both sides of a practice call: a page, and a telephone as Twilio's Media Streams are one."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.gateways import Gateway

Event = dict[str, Any]
CONFIG: Event = {"instructions": "You are a customer who complains.", "voice": "ash"}
SPEECH = base64.b64encode(bytes([0x8F, 0x0F] * 400)).decode()  # 100 ms of it, in μ-law
SILENCE = base64.b64encode(b"\xff" * 800).decode()


def http(at: Gateway, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=at.url, headers=headers, trust_env=False, timeout=60)


def make(at: Gateway, key: str, config: Event | None = None) -> Event:
    with http(at, key) as client:
        answer = client.post("/v1/calls", json={"config": config})
    assert answer.status_code == 201, answer.text
    return answer.json()


def post(at: Gateway, key: str, path: str, **body: Any) -> httpx.Response:
    with http(at, key) as client:
        return client.post(path, json=body or None)


class Side:
    """A socket of a call, and what came over it."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.got: list[Event] = []

    async def say(self, **event: Any) -> None:
        await self.ws.send(json.dumps(event))

    async def until(self, field: str, value: str, *, status: str | None = None) -> Event:
        async with asyncio.timeout(60):
            while True:
                event: Event = json.loads(await self.ws.recv())
                self.got.append(event)
                if event.get(field) == value and status in (None, event.get("status")):
                    return event

    async def status(self, status: str) -> Event:
        """Until the page is told that the call is in this state."""
        return await self.until("type", "call.status_changed", status=status)

    async def closed(self) -> tuple[int, str]:
        with pytest.raises(ConnectionClosed) as told:  # noqa: PT012 - until it is
            async with asyncio.timeout(60):
                while True:
                    self.got.append(json.loads(await self.ws.recv()))
        assert told.value.rcvd
        return told.value.rcvd.code, told.value.rcvd.reason

    async def start(self, stream: str = "MZ1") -> None:
        """What Twilio says first."""
        await self.say(event="connected", protocol="Call", version="1.0.0")
        media = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        start = {"streamSid": stream, "accountSid": "AC1", "callSid": "CA1", "tracks": ["inbound"],
                 "mediaFormat": media, "customParameters": {}}  # fmt: skip
        await self.say(event="start", sequenceNumber="1", start=start, streamSid=stream)

    async def speak(self, chunk: str, at_ms: int) -> None:
        media = {"track": "inbound", "chunk": "1", "timestamp": str(at_ms), "payload": chunk}
        await self.say(event="media", sequenceNumber="2", media=media, streamSid="MZ1")

    def count(self, kind: str) -> int:
        return sum(event.get("type") == kind for event in self.got)


@asynccontextmanager
async def side(address: str, **headers: str) -> AsyncGenerator[Side]:
    async with connect(address, additional_headers=headers, proxy=None) as ws:
        yield Side(ws)
