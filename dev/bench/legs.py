"""The legs of a chain, one by one: what each asked of the model, and what the prompt cache gave.

    build ─► recommendations ─► documentation ─► compaction ─► chat ─► update ─► …

The CLI is the real one, below its keeper; the model is the stand-in, whose cache follows the
provider's rules (dev/standin/cache.py). A leg's weight is in tokens of plain input: read 0.1,
written 1.25 (2 for an hour), plain 1; what the model writes is the same whatever is cached.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import Connection

from dev.standin.cache import prefixes_of
from dev.standin.model import Seen
from tasks.build import do_build
from tasks.chat_plan import do_chat_plan
from tasks.compaction import do_compaction
from tasks.metadata import do_metadata
from worker.broker import connection
from worker.broker.publish import celery_app
from worker.client import Build, ChatPlan, Update, enqueue
from worker.job.attempt import Attempt
from worker.job.run import run

DO: dict[str, Callable[[Attempt], None]] = {
    "build": do_build,
    "metadata": do_metadata,
    "compaction": do_compaction,
    "chat_plan": do_chat_plan,
}
READ, WRITTEN, WRITTEN_HOUR = 0.1, 1.25, 2.0
# Of the demo's size: with the system prompt and the tools some 27,000 tokens are read by the end.
TEXT = "The quick brown fox jumps over the lazy dog, and back again. " * 420
BUILD = f"write notes.md: {TEXT}\nread notes.md\nsay built"
UPDATE = "write more.md: a little\nread more.md\nsay updated"
ASK = "what did we do?"


@dataclass(frozen=True, slots=True)
class Leg:
    """One turn of the chain, with the requests that the model was asked in it."""

    name: str
    asked: tuple[Seen, ...]

    @property
    def weight(self) -> float:
        """Of all that was sent, in tokens of plain input."""
        return sum(weight(seen) for seen in self.asked)

    @property
    def read(self) -> int:
        """Tokens that the first request found in the cache."""
        return int((self.asked[0].usage or {}).get("cache_read_input_tokens", 0))

    @property
    def fixed(self) -> int:
        """Tokens of the tools and the system prompt, which all sessions share."""
        return fixed(self.asked[-1])

    @property
    def context(self) -> int:
        """Tokens of the last request: what the next leg goes on from."""
        usage = self.asked[-1].usage or {}
        kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        return sum(int(usage.get(kind, 0)) for kind in kinds)


def weight(seen: Seen) -> float:
    """Of one request, in tokens of plain input."""
    usage = seen.usage or {}
    by_age: dict[str, Any] = usage.get("cache_creation") or {}
    return (
        int(usage.get("input_tokens", 0))
        + READ * int(usage.get("cache_read_input_tokens", 0))
        + WRITTEN * int(by_age.get("ephemeral_5m_input_tokens", 0))
        + WRITTEN_HOUR * int(by_age.get("ephemeral_1h_input_tokens", 0))
    )


def fixed(seen: Seen) -> int:
    """Tokens of a request's tools and system prompt."""
    head = {"tools": seen.body.get("tools"), "system": seen.body.get("system")}
    return max((prefix.tokens for prefix in prefixes_of(head)), default=0)


class Chain:
    """Jobs of one project, run here and now; `legs` has every turn of them so far."""

    def __init__(
        self, conn: Connection, requests: Callable[[], tuple[Seen, ...]], project: str
    ) -> None:
        self._conn, self._requests, self._project = conn, requests, project
        # Imported before the services were there, it would look for another Redis for seconds.
        celery_app().conf.update(connection.address())
        self.legs: list[Leg] = []

    def build(self, prompt: str = BUILD) -> None:
        self._all_of(Build(project=self._project, user="bench", prompt=prompt))

    def update(self, prompt: str = UPDATE) -> None:
        self._all_of(Update(project=self._project, user="bench", prompt=prompt))

    def chat(self, prompt: str = ASK) -> None:
        self._all_of(ChatPlan(project=self._project, user="bench", prompt=prompt))

    def _all_of(self, request: Any) -> None:
        asked = enqueue(self._conn, request).id
        while waiting := self._next(asked):
            job, kind = waiting
            before = len(self._requests())
            ran = run(job, DO[kind])
            if ran.state != "done":
                raise SystemExit(f"The {kind} came to nothing: {ran.error}")
            turns = [s for s in self._requests()[before:] if s.kind != "side" and s.usage]
            self.legs += _legs(kind, turns)

    def _next(self, chain: UUID) -> tuple[UUID, str] | None:
        return self._conn.execute(
            """
            select id, kind from jobs where chain_id = %s and state = 'queued'
               and run_at <= now() order by created_at limit 1
            """,
            (chain,),
        ).fetchone()


def _legs(kind: str, turns: list[Seen]) -> Iterator[Leg]:
    """Metadata has two turns, each with a prompt of its own."""
    if kind != "metadata" or not turns:
        yield Leg(kind, tuple(turns))
        return
    first = turns[0].prompt
    yield Leg("recommendations", tuple(s for s in turns if s.prompt == first))
    yield Leg("documentation", tuple(s for s in turns if s.prompt != first))
