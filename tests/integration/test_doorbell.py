"""The gateway's reader of Redis, while those who watch come and go."""

import asyncio
from typing import Any

import pytest
import redis.asyncio as redis

from gateway.feed.doorbell import Doorbell


@pytest.mark.parametrize("moment", [1, 2])
def test_the_last_who_watched_may_leave_while_it_looks_where_to_begin(
    redis_url: str, moment: int
):
    async def nobody(_: str) -> None: ...

    def nothing(*_: Any) -> None: ...

    async def story() -> None:
        async with redis.Redis.from_url(redis_url, decode_responses=True) as reader:
            await reader.ping()
            bell = Doorbell(None)
            bell.listen(["shop"], [])
            reading = asyncio.create_task(bell._read(reader, nobody, nothing))  # pyright: ignore[reportPrivateUsage]
            for _ in range(moment):
                await asyncio.sleep(0)
            bell.listen([], [])
            await reading

    asyncio.run(story())
