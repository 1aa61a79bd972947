"""The one reader of Redis in a gateway, on a connection of its own: it rings when a log grows.

A cancelled command can leave its answer on a connection, and the next to use it would get what was
another's. So this connection is no pool's, and it is thrown away with the first error.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio as redis

from config.log import log
from config.settings import settings
from worker.broker.queues import BELL

EVENTS, PROGRESS = "events:", "progress:"
DATABASE = 2

BLOCK = 200  # milliseconds; what is newly listened to waits no longer
AGAIN = 1.0  # seconds after an error
PAUSE = 0.01  # seconds between two rings of the relay; a ring costs more than the rest of a small request
MANY = 200  # entries of a stream at a time

Entry = tuple[str, dict[str, Any]]


def client(database: int = DATABASE) -> redis.Redis | None:
    """A client for one of our databases; None: no Redis is named."""
    if not settings().redis_url:
        return None
    way = settings().redis_way()
    tls: dict[str, Any] = dict(way.tls)
    return redis.Redis.from_url(
        f"{way.address}/{database}",
        **tls,
        socket_timeout=2,
        socket_connect_timeout=2,
        decode_responses=True,
    )


class Doorbell:
    """Listens to streams, whose list changes while it listens."""

    def __init__(self, plain: redis.Redis | None) -> None:
        self._plain = plain  # for single short commands
        self._positions = dict[str, str]()
        self.rings = False
        self._asked = asyncio.Event()

    def listen(self, projects: list[str], chains: list[str]) -> None:
        """To these from now on: events from here, progress from its beginning."""
        wanted = {EVENTS + name: "$" for name in projects}
        wanted |= {PROGRESS + name: "0" for name in chains}
        for name in self._positions.keys() - wanted.keys():
            del self._positions[name]
        for name, position in wanted.items():
            self._positions.setdefault(name, position)

    def ring_relay(self) -> None:
        """The relay is to look."""
        self._asked.set()

    async def pass_on(self) -> None:
        """Ring the relay: at once, and once for all who ask within the next moment; until cancelled. Best
        effort: the relay looks ten times a second anyway."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            if self._plain is not None and self.rings:
                try:
                    await self._plain.publish(BELL, "")
                except (redis.RedisError, OSError):
                    self.rings = False
            await asyncio.sleep(PAUSE)

    async def run(
        self,
        rung: Callable[[str], Awaitable[None]],
        told: Callable[[str, list[Entry]], None],
    ) -> None:
        """Read until cancelled: `rung(project)` for new events, `told(chain, entries)` for progress."""
        while True:
            reader = client()
            if reader is None:
                return
            try:
                await reader.ping()
                self.rings = True
                while True:
                    await self._read(reader, rung, told)
            except (redis.RedisError, OSError, ValueError) as exc:
                if self.rings:
                    log.warning("gateway.redis_away", error=type(exc).__name__)
                self.rings = False
            finally:
                await reader.aclose()
            await asyncio.sleep(AGAIN)

    async def _read(
        self,
        reader: redis.Redis,
        rung: Callable[[str], Awaitable[None]],
        told: Callable[[str, list[Entry]], None],
    ) -> None:
        if not self._positions:
            await asyncio.sleep(BLOCK / 1000)
            return
        await self._pin(reader)
        streams: Any = dict(self._positions)
        if not streams:  # all have left meanwhile
            return
        found: Any = await reader.xread(streams, count=MANY, block=BLOCK)
        read: list[tuple[str, list[tuple[str, dict[str, str]]]]] = found or []
        for name, entries in read:
            if name not in self._positions:
                continue
            self._positions[name] = entries[-1][0]
            if name.startswith(EVENTS):
                await rung(name.removeprefix(EVENTS))
            else:
                told(
                    name.removeprefix(PROGRESS),
                    [(position, json.loads(fields["body"])) for position, fields in entries],
                )

    async def _pin(self, reader: redis.Redis) -> None:
        """`$` means the end at the time of the call, so between two calls an entry could be missed:
        it is asked for once."""
        for name, position in list(self._positions.items()):
            if position == "$":
                newest: Any = await reader.xrevrange(name, count=1)
                if name in self._positions:
                    self._positions[name] = newest[0][0] if newest else "0"
