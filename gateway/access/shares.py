"""How many connections to Postgres one user's requests may have at once, so that those of a user
whom somebody's transaction holds up leave the others theirs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from psycopg_pool import PoolTimeout

from db.core.async_pool import WAIT


class Crowded(PoolTimeout):
    """So much is asked for this user at once that no turn came."""


class Shares:
    """For each user so many, of one pool. A project has one user, and is in that user's share."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._of = WeakValueDictionary[str, asyncio.Semaphore]()  # of those who ask just now

    @asynccontextmanager
    async def of(self, user: str) -> AsyncGenerator[None]:
        """One of the user's. Raises Crowded where none is free for as long as a connection is waited for."""
        share = self._of.setdefault(user, asyncio.Semaphore(self._most))
        try:
            async with asyncio.timeout(WAIT):
                await share.acquire()
        except TimeoutError:
            raise Crowded from None
        try:
            yield
        finally:
            share.release()
