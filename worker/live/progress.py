"""What the agent is doing right now, for those who watch: a Redis stream, and no more.

High-rate and volatile: tool calls and text as they come. What matters is in Postgres
at the commit. The stream of a chain is capped and lives an hour. The pieces of a text that
is being written stay until it is whole.

Beside it, for each job whose agent runs, for how long it has been silent: noted when its
turn begins and with each renewal of its hold.
"""

import json
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import redis

from config.log import log
from config.settings import settings
from db.jobs.attempts import Claimed
from worker.live.checkpoints import PROGRESS, client
from worker.process import crash_points

QUIET = 10.0  # seconds in which a Redis that is away is not asked again
KEPT = 500  # entries of one chain's stream
TEXT = 8_000  # characters of one entry
WRITING = "writing"  # a piece of a text
BEGAN, ENDED = "turn.began", "turn.ended"  # between them an agent runs, and may be silent
NOTED = 120_000  # milliseconds for which a silence is known, if it is not noted again


def key(chain_id: UUID) -> str:
    """The stream of a chain's progress."""
    return f"progress:{chain_id}"


def of_step(job: Claimed, step: str) -> Callable[[str, dict[str, Any]], None]:
    """A function that tells what happens in this step. It never raises and never waits long."""
    return _Teller(job, step).tell


@dataclass(slots=True)
class _Teller:
    job: Claimed
    step: str
    quiet_until: float = 0.0
    pieces: list[str] = field(default_factory=list[str])  # of a text that is not whole: places

    def tell(self, what: str, body: dict[str, Any]) -> None:
        crash_points.reach(what)
        if time.monotonic() < self.quiet_until:
            return
        try:
            place = self._added(what, body)
        except redis.RedisError as exc:
            self.quiet_until = time.monotonic() + QUIET
            log.debug("progress.not_told", error=type(exc).__name__)
            return
        if what == WRITING:
            self.pieces.append(place)

    def _added(self, what: str, body: dict[str, Any]) -> str:
        job, name = self.job, key(self.job.chain_id)
        told = {"what": what, "job": str(job.id), "kind": job.kind, "step": self.step, **body}
        if isinstance(text := told.get("text"), str):
            told["text"] = text[:TEXT]
        with client(PROGRESS).pipeline(transaction=True) as pipe:
            pipe.xadd(name, {"body": json.dumps(told)}, maxlen=KEPT, approximate=True)
            pipe.expire(name, settings().checkpoint_ttl)
            if what == BEGAN:
                pipe.set(_silence(job.id), "0.0", px=NOTED)
            elif what == ENDED:
                pipe.unlink(_silence(job.id))
            if self.pieces and not (what == WRITING and body["from"]):
                pipe.xdel(name, *self.pieces)
                self.pieces.clear()
            place, *_ = pipe.execute()
        return place


def _silence(job_id: UUID) -> str:
    return f"silent:{job_id}"


def note_silence(job_id: UUID, seconds: float | None) -> None:
    """The job's agent has been silent for so long; None: no agent runs. Best effort."""
    try:
        if seconds is None:
            client(PROGRESS).unlink(_silence(job_id))
        else:
            client(PROGRESS).set(_silence(job_id), f"{seconds:.1f}", px=NOTED)
    except redis.RedisError as exc:
        log.debug("progress.not_told", error=type(exc).__name__)


def silences(jobs: Sequence[UUID]) -> dict[UUID, float]:
    """For how many seconds the agent of each job has given no sign of life, a few more or less.

    Not of those where no agent runs, or nothing was heard of the worker for two minutes; of
    none when Redis is away. What was noted is added to the time since, by Redis' clock alone.
    """
    try:
        with client(PROGRESS).pipeline(transaction=True) as pipe:
            for job_id in jobs:
                pipe.get(_silence(job_id))
                pipe.pttl(_silence(job_id))
            told: list[Any] = pipe.execute()
    except redis.RedisError:
        return {}
    return {
        job_id: float(noted) + (NOTED - left) / 1000
        for job_id, noted, left in zip(jobs, told[::2], told[1::2], strict=True)
        if noted is not None
    }


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
