"""What was said in a transcript, in words: what the user asked, and how each turn ended.

Tool calls and their results, the CLI's own reminders and commands, sub-agents and what a
worker put before a prompt are left out.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from db.transcripts.form import Entry
from worker.text.storable import plain

ASIDE = re.compile(
    r"<(system-reminder|project-history|project-notes|interrupted-request|local-command-\w+|command-\w+)>"
    r".*?</\1>",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Said:
    """One message; `at` in seconds since the epoch, 0 where the transcript does not say."""

    role: str
    text: str
    at: float


def said(entries: Iterable[Entry]) -> list[Said]:
    """The messages in order: of the agent's the last one before the next prompt."""
    found = list[Said]()
    for entry in entries:
        one = _said(entry)
        if one is None:
            continue
        if one.role == "assistant" and found and found[-1].role == "assistant":
            found.pop()
        found.append(one)
    return found


def _said(entry: Entry) -> Said | None:
    role = entry.get("type")
    beside = entry.get("isSidechain") or entry.get("isMeta") or entry.get("isCompactSummary")
    if role not in ("user", "assistant") or beside:
        return None
    if _message(entry).get("model") == "<synthetic>":
        return None
    text = ASIDE.sub("", spoken(entry)).strip()
    return Said(str(role), text, _at(entry)) if text else None


def spoken(entry: Entry) -> str:
    """The text of an entry's message, whatever its form."""
    content: Any = _message(entry).get("content")
    if isinstance(content, str):
        return plain(content)
    blocks = cast(list[Any], content) if isinstance(content, list) else []
    texts = [
        cast(dict[str, Any], each).get("text") for each in blocks if isinstance(each, dict)
    ]
    return plain("\n".join(text for text in texts if isinstance(text, str)))


def _message(entry: Entry) -> dict[str, Any]:
    message: Any = entry.get("message")
    return cast(dict[str, Any], message) if isinstance(message, dict) else {}


def _at(entry: Entry) -> float:
    try:
        return datetime.fromisoformat(str(entry.get("timestamp"))).timestamp()
    except ValueError:
        return 0.0
