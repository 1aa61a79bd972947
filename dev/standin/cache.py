"""Tokens, and which of them the prompt cache gives back.

An estimate counts one token for every four characters of a block's JSON. The cache keeps
prefixes, in the API's order: tools, then system, then messages. Each block's hash takes in
all blocks before it, so one change makes everything behind it unknown.

    tools ─ system ─ message ─ message ─ message ─ message
                  ▲                   ▲
                  └ cache_control     └ cache_control: prefixes up to here are kept and looked up

- A prefix is kept where the request has a `cache_control`, for 5 minutes or, with
  `"ttl": "1h"`, an hour; each use renews it.
- A lookup tries the block of each `cache_control` and the 20 before it, and takes the
  longest prefix found. What lies between it and the last `cache_control` is written.
- A prefix shorter than MINIMUM tokens is neither kept nor found.
- A change of `tool_choice` or `thinking` leaves tools and system known, messages not.
- Keys and models do not share. The CLI's billing header is no part of the prompt.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dev.standin.messages import JSON, content_blocks, message_blocks, tools

CHARACTERS_PER_TOKEN = 4
MINIMUM = 1024  # tokens; the API's varies by model, from 1024 to 4096
LOOKBACK = 20  # blocks before a breakpoint
TTL = {"5m": 300.0, "1h": 3600.0}  # seconds


@dataclass(frozen=True, slots=True)
class Usage:
    """Input tokens as the API reports them: new ones, those written by lifetime, those read."""

    input: int = 0
    written_5m: int = 0
    written_1h: int = 0
    read: int = 0

    @property
    def total(self) -> int:
        return self.input + self.written_5m + self.written_1h + self.read

    def json(self, output: int) -> JSON:
        """The `usage` of a message that has this input and `output` tokens."""
        return {
            "input_tokens": self.input,
            "cache_creation_input_tokens": self.written_5m + self.written_1h,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.written_5m,
                "ephemeral_1h_input_tokens": self.written_1h,
            },
            "output_tokens": output,
            "service_tier": "standard",
        }


@dataclass(frozen=True, slots=True)
class Prefix:
    """A request up to and with one block: its hash, its length, its breakpoint's TTL if any."""

    digest: str
    tokens: int
    ttl: str | None


@dataclass(slots=True)
class Entry:
    seconds: float
    until: float


class PromptCache:
    """Prefixes seen, by API key and model."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, minimum: int = MINIMUM
    ) -> None:
        self._clock = clock
        self._minimum = minimum
        self._entries: dict[tuple[str, str, str], Entry] = {}

    def charge(self, request: JSON, *, key: str) -> Usage:
        """Account for a request, and keep its prefixes."""
        prefixes = list(prefixes_of(request))
        total = prefixes[-1].tokens if prefixes else 0
        marked = [i for i, p in enumerate(prefixes) if p.ttl and p.tokens >= self._minimum]
        if not marked:
            return Usage(input=total)
        who = (key, str(request.get("model")))
        hit = self._longest(prefixes, marked, who)
        read = prefixes[hit].tokens if hit is not None else 0
        end_5m = prefixes[marked[-1]].tokens
        end_1h = max([prefixes[i].tokens for i in marked if prefixes[i].ttl == "1h"], default=0)
        self._keep([prefixes[i] for i in marked], who)
        return Usage(
            input=total - max(end_5m, read),
            written_1h=max(0, end_1h - read),
            written_5m=max(0, end_5m - max(end_1h, read)),
            read=read,
        )

    def _longest(
        self, prefixes: list[Prefix], marked: list[int], who: tuple[str, str]
    ) -> int | None:
        now = self._clock()
        tried = {i for m in marked for i in range(max(0, m - LOOKBACK), m + 1)}
        for i in sorted(tried, reverse=True):
            entry = self._entries.get((*who, prefixes[i].digest))
            if entry and entry.until > now:
                entry.until = now + entry.seconds
                return i
        return None

    def _keep(self, marked: list[Prefix], who: tuple[str, str]) -> None:
        now = self._clock()
        self._entries = {k: e for k, e in self._entries.items() if e.until > now}
        for prefix in marked:
            known = self._entries.get((*who, prefix.digest))
            seconds = max(TTL[prefix.ttl or "5m"], known.seconds if known else 0)
            self._entries[(*who, prefix.digest)] = Entry(seconds, now + seconds)


def estimate(value: object) -> int:
    """Tokens of a text or a block, roughly: its characters as JSON, over four."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return max(1, len(text) // CHARACTERS_PER_TOKEN)


def count(request: JSON) -> int:
    """Tokens of a whole request."""
    return sum(estimate(_bare(body)) for _, body in _parts(request))


def prefixes_of(request: JSON) -> Iterator[Prefix]:
    """The request's prefixes, one for each block, from the shortest on."""
    digest, tokens = "", 0
    for level, body in _parts(request):
        mark = body.get("cache_control")
        bare = _bare(body)
        seed = json.dumps([digest, level, bare], sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()
        tokens += estimate(bare)
        yield Prefix(digest, tokens, _ttl(mark) if mark else None)


def _parts(request: JSON) -> Iterator[tuple[str, JSON]]:
    """Every block with where it stands, in the order of the cache."""
    for tool in tools(request):
        yield "tool", tool
    for body in content_blocks(request.get("system")):
        if not str(body.get("text", "")).startswith("x-anthropic-billing-header"):
            yield "system", body
    settings = json.dumps([request.get("tool_choice"), request.get("thinking")])
    for block in message_blocks(request):
        yield f"{block.role} {settings}", block.body


def _bare(body: JSON) -> JSON:
    return {k: v for k, v in body.items() if k != "cache_control"}


def _ttl(mark: JSON) -> str:
    return "1h" if mark.get("ttl") == "1h" else "5m"
