"""Made-up histories of sessions, in the CLI's form and of a given size, for the bench."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

Entry = dict[str, Any]

MB = 2**20
SITE = Path(__file__).parents[1] / "standin" / "scenarios" / "demo"
LINES = [line for file in sorted(SITE.glob("*.*")) for line in file.read_text().splitlines()]
PAIR = 9_000  # bytes of JSON of a prompt and its answer, as in sessions of the real CLI
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def history(session: str, size: int, *, behind: int | None = None) -> list[Entry]:
    """Prompts and answers of `size` bytes; `behind`: so much of it since a compaction."""
    maker = _Maker(session)
    maker.fill(size - (behind or 0))
    if behind:
        maker.compact()
        maker.fill(behind)
    return maker.entries


def turn(session: str, after: Entry, size: int, *, seed: int) -> list[Entry]:
    """What one more turn adds behind an entry."""
    maker = _Maker(session, seed=seed, last=after["uuid"])
    maker.fill(size)
    return maker.entries


def forked(entries: list[Entry], child: str) -> list[Entry]:
    """The history as the CLI writes it into a fork: the same but for the ids of the session."""
    return [one | {"sessionId": child} for one in entries]


class _Maker:
    def __init__(self, session: str, *, seed: int = 0, last: str | None = None) -> None:
        self.entries = list[Entry]()
        self._session = session
        self._random = random.Random(f"{session} {seed}")
        self._last = last

    def fill(self, size: int) -> None:
        for number in range(max(1, size // PAIR)):
            self._add("user", f"Prompt {number}: {self._text(700)}")
            answer: dict[str, Any] = {
                "model": "claude-opus-4-5",
                "id": f"msg_{self._random.getrandbits(64):x}",
                "type": "message",
                "content": [{"type": "text", "text": self._text(7_000)}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 10, "output_tokens": 5},
            }
            self._add("assistant", None, **answer)

    def compact(self) -> None:
        self._last = None
        self._add("system", None, boundary=True)
        self._add("user", f"This session is being continued. {self._text(3_000)}")
        self.entries[-1] |= {"isCompactSummary": True}

    def _add(
        self, kind: str, text: str | None, *, boundary: bool = False, **message: Any
    ) -> None:
        at = BEGAN + timedelta(seconds=len(self.entries))
        entry: Entry = {
            "parentUuid": self._last,
            "isSidechain": False,
            "userType": "external",
            "cwd": "/srv/shop",
            "sessionId": self._session,
            "version": "2.1.327",
            "gitBranch": "HEAD",
            "type": kind,
            "uuid": str(UUID(int=self._random.getrandbits(128), version=4)),
            "timestamp": at.isoformat().replace("+00:00", "Z"),
        }
        if boundary:
            compacted = {"trigger": "manual", "preTokens": 150_000}
            entry |= {"subtype": "compact_boundary", "content": "Conversation compacted"}
            entry |= {"compactMetadata": compacted, "level": "info", "isMeta": False}
        else:
            entry["message"] = {"role": kind, **({"content": text} if text else {}), **message}
        self._last = entry["uuid"]
        self.entries.append(entry)

    def _text(self, size: int) -> str:
        return "\n".join(self._random.choices(LINES, k=size // 10))[:size]


def as_jsonl(entries: list[Entry]) -> str:
    """The entries as the CLI keeps them in a file."""
    return "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in entries)
