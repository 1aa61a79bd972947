"""Whether a session that is old or long is worth resuming: what each way would cost.

    resume   its whole context is read: cheap while the provider's prompt cache holds it
    compact  it is read once, to be summed up; then the summary is read
    fresh    the digest is read, and part of what the session knew is found out again

In tokens of plain input (db/sessions/costs.py), for one turn of CALLS requests. What every session
reads alike, the system prompt and the tools, is left out of all three. The constants are
assumptions, said in docs/sessions.md; the choice and the figures are told in an event.
"""

from dataclasses import dataclass
from typing import Literal

from config.settings import settings
from db.sessions.costs import WEIGHTS

Way = Literal["resume", "compact", "fresh"]

CALLS = 8  # requests of a usual turn
SUMMARY = 3_000  # tokens of a compaction's summary
FOUND_OUT_AGAIN = 0.3  # share of the context that a fresh session reads once more
CHARS = 4  # of a token, about
# Tokens; the CLI's own prompt is longer, so a smaller figure is not to be trusted.
LEAST = 5_000


@dataclass(frozen=True, slots=True)
class Weighed:
    """The cheapest way, why there was a choice to make, and what each way would cost."""

    way: Way
    why: str
    costs: dict[Way, int]


def weigh(why: str, ways: tuple[Way, ...], *, context: int, idle: float) -> Weighed:
    """Choose among `ways` for a session of `context` tokens, used `idle` seconds ago."""
    context = max(context, LEAST)
    warm = idle < settings().cache_ttl.total_seconds()
    first = WEIGHTS["cache_read" if warm else "cache_creation"] * context
    told = settings().digest_chars / CHARS + FOUND_OUT_AGAIN * context
    all_costs: dict[Way, float] = {
        "resume": first + _again(context),
        "compact": first + WEIGHTS["output"] * SUMMARY + _read(SUMMARY),
        "fresh": _read(told),
    }
    costs: dict[Way, int] = {way: round(all_costs[way]) for way in ways}
    return Weighed(min(costs, key=lambda way: costs[way]), why, costs)


def _read(tokens: float) -> float:
    """Read for the first time, and in every further request of the turn."""
    return WEIGHTS["cache_creation"] * tokens + _again(tokens)


def _again(tokens: float) -> float:
    return WEIGHTS["cache_read"] * tokens * (CALLS - 1)
