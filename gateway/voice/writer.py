"""Keeps sessions and charges in Postgres, beside the streams, which never wait for it.

Of a session only its newest state waits here, so the queue is as long as there are sessions. A write that
Postgres does not take now is told to the log once and tried again; one that it never takes is dropped,
as is one that it stops again and again: others wait behind it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from psycopg import AsyncConnection

from config.log import log as logger
from db.core.async_pool import Pool
from db.core.outages import is_stopped
from db.live import voice
from gateway.ledger import ERRORS, is_away, told
from gateway.voice.events import Event
from worker.text.storable import plain_data

MOST = 5000  # of sessions, and of charges, that wait
FIRST, LONGEST = 0.2, 5.0  # seconds between two tries
TRIES = 6  # some six seconds, of a write that Postgres stops, though it answers
LAST = 3.0  # seconds for what still waits when the gateway stops
Name = tuple[str, str]  # account, session


@dataclass(slots=True)
class Charge:
    """What a response used, and who waits to know what is left."""

    name: Name
    tokens: int
    left: "asyncio.Future[int | None]"
    id: UUID = field(default_factory=uuid4)


class Writer:
    """One for each gateway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._states: dict[Name, tuple[Event | None, list[Event]]] = {}
        self._charges: deque[Charge] = deque()
        self._stopped = 0  # times, one after the other
        self._news, self._done = asyncio.Event(), asyncio.Event()

    def keep(self, name: Name, data: Event | None, items: list[Event]) -> None:
        """Keep the session as it is now."""
        if len(self._states) >= MOST and name not in self._states:
            logger.error(
                "voice.not_kept", account=name[0], session=name[1], why="too many wait"
            )
            return
        self._states[name] = (data, items)
        self._news.set()

    def charge(self, name: Name, tokens: int) -> "asyncio.Future[int | None]":
        """Charge the account; what is left comes when it is written. None: there is no limit."""
        charge = Charge(name, tokens, asyncio.get_running_loop().create_future())
        if len(self._charges) >= MOST:
            logger.error(
                "voice.not_charged", account=name[0], tokens=tokens, why="too many wait"
            )
            charge.left.set_result(None)
            return charge.left
        self._charges.append(charge)
        self._news.set()
        return charge.left

    def waiting(self, name: Name) -> tuple[Event | None, list[Event]] | None:
        """What of a session is not written yet: newer than its row."""
        return self._states.get(name)

    async def run(self) -> None:
        """Write, for ever."""
        pause = FIRST
        while True:
            try:
                await self._write_all()
            except ERRORS as exc:
                if pause == FIRST:
                    logger.warning("voice.writes_wait", error=type(exc).__name__)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST)
            else:
                pause = FIRST

    async def drain(self) -> None:
        """Wait a little for what is still to be written."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                while self._charges or self._states:
                    self._done.clear()
                    await self._done.wait()

    async def _write_all(self) -> None:
        self._news.clear()
        while self._charges:
            charge = self._charges[0]
            left = await self._try(self._charged(charge), charge.name)
            self._charges.popleft()
            if not charge.left.done():
                charge.left.set_result(left)
        for name in list(self._states):
            state = self._states[name]
            await self._try(self._saved(name, *state), name)
            if self._states[name] is state:  # nothing newer has come meanwhile
                del self._states[name]
            if self._charges:
                return
        self._done.set()
        await self._news.wait()

    async def _try(
        self, work: Callable[[AsyncConnection[Any]], Awaitable[int | None]], name: Name
    ) -> int | None:
        """Do it with a connection. What Postgres will never take is told and left."""
        try:
            async with self._pool.connection() as conn:
                left = await work(conn)
        except ERRORS as exc:
            if self._may_pass(exc):
                raise
            logger.error("voice.not_written", account=name[0], session=name[1],
                         error=type(exc).__name__, rule=told(exc))  # fmt: skip
            left = None
        self._stopped = 0
        return left

    def _may_pass(self, exc: Exception) -> bool:
        if not is_stopped(exc):
            return is_away(exc)
        self._stopped += 1
        return self._stopped < TRIES

    def _charged(
        self, charge: Charge
    ) -> Callable[[AsyncConnection[Any]], Awaitable[int | None]]:
        return lambda conn: voice.charge(conn, charge.id, *charge.name, charge.tokens)

    def _saved(
        self, name: Name, data: Event | None, items: list[Event]
    ) -> Callable[[AsyncConnection[Any]], Awaitable[None]]:
        return lambda conn: voice.save(conn, *name, plain_data(data), plain_data(items))
