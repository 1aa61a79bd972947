"""What the agent is doing right now, for those who watch: a Redis stream, and no more.

High-rate and volatile: tool calls and text as they come. What matters is in Postgres
at the commit. The stream of a chain is capped and lives an hour.
"""

import json
import time
from collections.abc import Callable, Generator
from typing import Any
from uuid import UUID

import redis
import structlog

from config.settings import settings
from db.attempts import Claimed
from worker import points
from worker.checkpoints import PROGRESS, client

log = structlog.get_logger()

QUIET = 10.0  # seconds in which a Redis that is away is not asked again
KEPT = 500  # entries of one chain's stream
TEXT = 2_000  # characters of one entry


def key(chain_id: UUID) -> str:
    """The stream of a chain's progress."""
    return f"progress:{chain_id}"


def of_step(job: Claimed, step: str) -> Callable[[str, dict[str, Any]], None]:
    """A function that tells what happens in this step. It never raises and never waits long."""
    name = key(job.chain_id)
    quiet_until = 0.0

    def saw(what: str, body: dict[str, Any]) -> None:
        nonlocal quiet_until
        points.reach(what)
        if time.monotonic() < quiet_until:
            return
        told = {"what": what, "job": str(job.id), "kind": job.kind, "step": step, **body}
        if isinstance(text := told.get("text"), str):
            told["text"] = text[:TEXT]
        try:
            with client(PROGRESS).pipeline(transaction=True) as pipe:
                pipe.xadd(name, {"body": json.dumps(told)}, maxlen=KEPT, approximate=True)
                pipe.expire(name, settings().checkpoint_ttl)
                pipe.execute()
        except redis.RedisError as exc:
            quiet_until = time.monotonic() + QUIET
            log.debug("progress.not_told", error=type(exc).__name__)

    return saw


def follow(chain_id: UUID, after: str = "0") -> Generator[tuple[str, dict[str, Any]]]:
    """What was told since `after`, with the position of each; nothing if Redis is away."""
    try:
        found: Any = client(PROGRESS).xrange(
            key(chain_id), min=f"({after}" if after != "0" else "-"
        )
    except redis.RedisError:
        return
    for position, fields in found:
        yield position, json.loads(fields["body"])
