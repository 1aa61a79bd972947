"""Redis checkpoints: which session a running chain has reached.

Quick to read, safe to lose: nothing of ours decides by them. Each lives an hour after
its chain last wrote or renewed it.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.log import log
from config.settings import settings
from worker.text import file_names

BROKER, CHECKPOINTS, PROGRESS = 0, 1, 2  # Redis databases
WAIT = 1.0  # seconds: Redis makes things quick, so nothing waits long for it


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Names as other services read them: sessionId, buildId, projectPath, filesCreated."""

    sessionId: str  # noqa: N815 - the contract's names
    buildId: str  # noqa: N815
    projectPath: str  # noqa: N815
    filesCreated: list[str]  # noqa: N815


@cache
def client(database: int) -> redis.Redis:
    """This process's client for one of our databases; connects on first use."""
    if not settings().redis_url:
        raise redis.ConnectionError("REDIS_URL is not set")
    way = settings().redis_way()
    return redis.Redis.from_url(
        f"{way.address}/{database}",
        **way.tls,
        retry=Retry(NoBackoff(), 1),  # at once: left alone it pauses for seconds
        socket_timeout=WAIT,
        socket_connect_timeout=WAIT,
        decode_responses=True,
    )


def key(build_id: UUID) -> str:
    """The key of a chain's checkpoint; the build id is the chain's id."""
    return f"claude:session:{build_id}"


def save(build_id: UUID, checkpoint: Checkpoint) -> None:
    """Write the checkpoint with its time to live; files that the chain created before stay
    named, as many as there is room for. Best effort."""
    try:
        before = _created(_put(build_id, checkpoint, checkpoint.filesCreated))
        if more := [name for name in before if name not in checkpoint.filesCreated]:
            _put(build_id, checkpoint, [*more, *checkpoint.filesCreated])
    except redis.RedisError as exc:
        log.info("checkpoint.not_saved", error=type(exc).__name__)


def _put(build_id: UUID, checkpoint: Checkpoint, files: list[str]) -> Any:
    """Returns what was there before: one trip, since it is seldom that more was known then."""
    body = asdict(checkpoint) | {"filesCreated": file_names.first_of(dict.fromkeys(files))}
    text, lasts = json.dumps(body), settings().checkpoint_ttl
    return client(CHECKPOINTS).set(key(build_id), text, ex=lasts, get=True)


def _created(before: Any) -> list[str]:
    """The files that a checkpoint names; none if nothing is there, or nothing of ours."""
    try:
        return [str(name) for name in json.loads(before or "{}")["filesCreated"]]
    except (ValueError, KeyError, TypeError):
        return []


def refresh(build_id: UUID) -> bool:
    """Push the checkpoint's end back while its chain runs. Best effort; whether Redis answered."""
    try:
        client(CHECKPOINTS).expire(key(build_id), settings().checkpoint_ttl)
    except redis.RedisError as exc:
        log.info("checkpoint.not_refreshed", error=type(exc).__name__)
        return False
    return True
