"""What doctor sees of Redis, and of the two that serve pages: Flower and the gateway."""

from collections.abc import Iterator
from typing import Any

from config.settings import settings
from worker.broker import flower
from worker.cli.doctor.check import Check, Verdict


def redis_and_web() -> Iterator[Check]:
    """Redis and the lengths of its queues, Flower, the gateway."""
    from redis import RedisError

    from worker.broker.connection import away, fitness, lets_anybody_in, trusting
    from worker.broker.periodic import QUEUE as UPKEEP
    from worker.broker.queues import PLAIN, QUEUE
    from worker.live.checkpoints import client

    if not settings().redis_url:
        yield Check("redis", "fail", "REDIS_URL is not set: set it, or start `baton up`.")
        return
    try:
        memory: Any = client(0).info("memory")
        lengths: list[Any] = [client(0).llen(name) for name in (QUEUE, PLAIN, UPKEEP)]
    except (RedisError, ValueError) as exc:
        yield Check("redis", "fail", away(exc))
        return
    way = settings().redis_way()
    anybody = lets_anybody_in(way)
    yield Check("redis", *fitness(memory, trusting=trusting(way), anybody=anybody))
    yield Check(
        "queues",
        "ok",
        f"{QUEUE}: {lengths[0]} messages, {PLAIN} (plain): {lengths[1]}, {UPKEEP}: {lengths[2]}",
    )
    if settings().flower_url:
        yield Check("flower", *flower.closed(settings().flower_url.get_secret_value()))
    if settings().web_url:
        yield Check("web", *_web(settings().web_url))


def _web(url: str) -> Verdict:
    """Whether the gateway can serve, in its own words."""
    import httpx

    try:
        told = httpx.get(f"{url}/readyz", timeout=3, trust_env=False)
        redis = str(told.json().get("redis", "ok"))
    except (httpx.HTTPError, ValueError):
        return (
            "warn",
            f"The gateway does not answer at {url}: start it (`web` in the Procfile).",
        )
    if told.status_code != 200:
        return "fail", str(told.json().get("detail"))
    return ("ok", url) if redis == "ok" else ("warn", f"{url} goes on without Redis ({redis}).")
