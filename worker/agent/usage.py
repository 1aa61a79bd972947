"""Tokens, as the API counts them: of a turn, of the conversation, and weighed for a price."""

from collections.abc import Iterable
from typing import Any

from db.sessions.costs import WEIGHTS

NAMES = {  # of the API's, by kind of token
    "input": "input_tokens",
    "cache_creation": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
    "output": "output_tokens",
}


def count(usage: dict[str, Any], kind: str) -> int:
    """Tokens of one kind."""
    return int(usage.get(NAMES[kind]) or 0)


def context(usage: dict[str, Any] | None) -> int:
    """Tokens of the conversation after an answer of the model."""
    return sum(count(usage or {}, kind) for kind in NAMES)


def weight(usages: Iterable[dict[str, Any]]) -> float:
    """What was used, in tokens of plain input."""
    return sum(rate * count(usage, kind) for usage in usages for kind, rate in WEIGHTS.items())
