"""How long the provider is to keep a turn's prompts: as decided, else as those of its parent.

So all legs of a chain have what its first one was given, and no other looks at the past again.
"""

from typing import Any

from config.settings import settings
from worker.session.ladder import Choice


def for_an_hour(choice: Choice) -> bool:
    """Whether for an hour, and not for five minutes."""
    if (wanted := settings().prompt_cache) != "auto":
        return wanted == "1h"
    return _hour_of_parent(choice) if choice.hour is None else choice.hour


def _hour_of_parent(choice: Choice) -> bool:
    for entry in reversed(choice.entries):
        if entry.get("type") == "assistant" and not entry.get("isSidechain"):
            usage: dict[str, Any] = entry["message"].get("usage") or {}
            by_age: dict[str, Any] = usage.get("cache_creation") or {}
            if usage.get("cache_creation_input_tokens"):
                return bool(by_age.get("ephemeral_1h_input_tokens"))
    return False
