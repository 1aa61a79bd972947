"""What an answer of the model's costs, read as it passes by.

Tokens are counted as the API tells them, in a JSON answer or in the events of a stream, and
priced by a list here. It is the fence round an agent that spends by itself, not the bill: the
CLI's own figure stays the turn's cost. What the list does not know counts as the dearest.
"""

import json
from typing import Any

from db.sessions.costs import WEIGHTS

# US dollars for a million tokens of plain input; what other tokens cost is a multiple of it.
PRICES = {"haiku": 1.0, "sonnet": 3.0, "opus": 5.0}
DEAREST = 15.0
MILLION = 1_000_000
CHARACTERS = 4  # of a text, about, in one token
LONGEST = 4 * 2**20  # bytes of a JSON answer, or of one event, that are read for it
FIELDS = {
    "input": "input_tokens",
    "cache_creation": "cache_creation_input_tokens",
    "cache_read": "cache_read_input_tokens",
    "output": "output_tokens",
}


def price(model: str) -> float:
    """US dollars for one token of plain input."""
    known = [usd for name, usd in PRICES.items() if name in model]
    return (known[0] if known else DEAREST) / MILLION


class Meter:
    """Reads one answer; `stream`: it is an event stream."""

    def __init__(self) -> None:
        self.stream, self._rest = False, bytearray()
        self._model, self._used = "", dict[str, int]()

    def read(self, data: bytes) -> None:
        """A part of the answer."""
        self._rest += data
        if self.stream:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
            for line in lines:
                if line.startswith(b"data:") and b'"usage"' in line:
                    self._take(line.removeprefix(b"data:"))
        if len(self._rest) > LONGEST:
            self._rest.clear()

    def broken_off(self, size: int) -> None:
        """The client went, maybe before the answer said what the request (of `size` bytes) is:
        the model has read it all the same."""
        self.usd()
        if not any(self._used.values()):
            self._used["input"] = size // CHARACTERS

    def usd(self) -> float:
        """What was used so far, in US dollars."""
        if not self.stream:
            self._take(bytes(self._rest))
        weight = sum(rate * self._used.get(kind, 0) for kind, rate in WEIGHTS.items())
        return weight * price(self._model)

    def _take(self, text: bytes) -> None:
        """The usage of a message, or of an event. Later figures are of all until then."""
        try:
            told: Any = json.loads(text)
            told = told.get("message") or told
            usage: dict[str, Any] = told.get("usage") or {}
            self._model = str(told.get("model") or self._model)
            for kind, name in FIELDS.items():
                self._used[kind] = max(self._used.get(kind, 0), int(usage.get(name) or 0))
        except (ValueError, AttributeError, TypeError, RecursionError, OverflowError):
            return  # no answer of the API: it is not charged by us
