"""The gateway's reader of Redis, while those who watch come and go."""

import asyncio
from typing import Any

import pytest
import redis.asyncio as redis

from gateway.feed.doorbell import PAUSE, Doorbell, client
from tests.conftest import Configure
from worker.broker.queues import BELL


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


def test_the_relay_is_rung_at_once_and_then_once_for_all_who_ask_within_a_moment(
    redis_url: str, configure: Configure
):
    configure(REDIS_URL=redis_url)

    async def story() -> int:
        plain = client()
        assert plain is not None
        async with plain, plain.pubsub() as relay:
            await relay.subscribe(BELL)
            await relay.get_message(timeout=5)  # that it listens
            bell, loop = Doorbell(plain), asyncio.get_running_loop()
            bell.rings = True
            passing, began, rung = asyncio.create_task(bell.pass_on()), loop.time(), 0
            while loop.time() < began + 5 * PAUSE:
                bell.ring_relay()
                await asyncio.sleep(0)
            most = (loop.time() - began) / PAUSE + 1
            while await relay.get_message(ignore_subscribe_messages=True, timeout=20 * PAUSE):
                rung += 1
            passing.cancel()
        assert rung <= most + 1
        return rung

    assert asyncio.run(story()) >= 1
