"""Who watches which call: woken at once by this gateway's own writes, four times a second by others'."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import timedelta

import psycopg
import psycopg_pool

from config.log import log as logger
from config.settings import settings
from db.core.async_pool import Pool
from db.live import calls

EVERY = 0.25  # seconds between two looks at calls that are watched
SWEEP = 20  # looks between two sweeps
SILENT = timedelta(seconds=60)  # a gateway notes its calls every 15 s
AWAY = (psycopg.Error, psycopg_pool.PoolTimeout)


class Bell:
    """One for each gateway."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._heads: dict[str, int] = {}

    @contextmanager
    def watch(self, call: str) -> Generator[asyncio.Event]:
        """An event that is set when something has happened to the call."""
        news = asyncio.Event()
        self._watchers.setdefault(call, set()).add(news)
        try:
            yield news
        finally:
            self._watchers[call].discard(news)
            if not self._watchers[call]:
                del self._watchers[call]
                self._heads.pop(call, None)

    def ring(self, call: str) -> None:
        """Something has happened to it here."""
        for news in self._watchers.get(call, ()):
            news.set()

    async def run(self) -> None:
        """Look for what happened elsewhere, and end what nobody ends, for ever."""
        looks = 0
        while True:
            await asyncio.sleep(EVERY)
            with suppress(*AWAY):
                await self._look()
                if looks % SWEEP == 0:
                    await self._sweep()
                looks += 1

    async def _look(self) -> None:
        if not self._watchers:
            return
        async with self.pool.connection() as conn:
            heads = await calls.heads(conn, list(self._watchers))
        for call, head in heads.items():
            if self._heads.get(call) != head:
                self._heads[call] = head
                self.ring(call)

    async def _sweep(self) -> None:
        async with self.pool.connection() as conn:
            for call in await calls.end_late(conn, settings().call_wait, SILENT):
                logger.info("call.ended_late", call=call)
                self.ring(call)
