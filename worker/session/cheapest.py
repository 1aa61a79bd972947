"""Whether a session that is old, long or out of the provider's cache is worth resuming, worth a
compaction, and worth an hour of that cache: what each way would cost.

    resume   its whole context is read: cheap while the provider's prompt cache holds it
    compact  it is read once, to be summed up; then the summary is read
    fresh    the digest is read, and part of what the session knew is found out again

In tokens of plain input (db/sessions/costs.py), for one turn of as many requests as the project's
turns have had, else CALLS. docs/cost.md says which of the constants are measured.
"""

from dataclasses import dataclass, field
from typing import Literal

from config.settings import settings
from db.sessions.costs import WEIGHTS
from db.sessions.habits import NONE, Habits
from worker.session import prices

Way = Literal["resume", "compact", "fresh"]

CALLS = 8  # requests of a usual turn
SUMMARY = 3_000  # tokens of a compaction's summary
FOUND_OUT_AGAIN = 0.3  # share of the context that a fresh session reads once more
LEFT_OUT = 0.1  # and one that goes on from a summary
CHARS = 4  # of a token, about
# Tokens; the CLI's own prompt is longer, so a smaller figure is not to be trusted.
LEAST = 5_000
FIXED = 7_000  # tokens of the tools and the system prompt, in every context
LONG = 27_000  # tokens of context from which on more than age and number of turns is looked at
MARGIN = 0.8  # of what going on as it is costs: a compaction also forgets, and takes time
HOUR = 3600.0  # seconds
WRITTEN_HOUR = 2.0  # what writing to the cache for an hour costs


@dataclass(frozen=True, slots=True)
class Weighed:
    """The cheapest way, why there was a choice to make, and what each way would cost. `basis`:
    what was known of the project, for people."""

    way: Way
    why: str
    costs: dict[Way, int]
    basis: dict[str, float | str] = field(default_factory=dict[str, float | str])


def weigh(
    why: str,
    ways: tuple[Way, ...],
    *,
    context: int,
    idle: float,
    habits: Habits = NONE,
    changed: bool = False,
    model: str | None = None,
) -> Weighed:
    """Choose among `ways` for a session of `context` tokens, used `idle` seconds ago. `changed`:
    another version of the CLI wrote it, and begins with another prompt."""
    context, calls = max(context, LEAST), _calls(habits)
    life = _life(hour=worth_an_hour(context, habits))
    first = WEIGHTS["cache_read" if idle < life and not changed else "cache_creation"] * context
    summed = SUMMARY + LEFT_OUT * context
    told = settings().digest_chars / CHARS + FOUND_OUT_AGAIN * context
    all_costs: dict[Way, float] = {
        "resume": first + _again(context, calls),
        "compact": first + WEIGHTS["output"] * SUMMARY + _read(summed, calls),
        "fresh": _read(told, calls),
    }
    costs: dict[Way, int] = {way: round(all_costs[way]) for way in ways}
    way = min(costs, key=lambda way: costs[way])
    if way == "compact" and "resume" in costs and costs[way] > MARGIN * costs["resume"]:
        way = "resume"
    return Weighed(way, why, costs, _basis(habits, life, costs[way], model))


def sum_up_now(context: int, habits: Habits, *, model: str | None = None) -> Weighed | None:
    """At the end of a chain, while all is in the cache: whether to compact although the session is
    not too long, because the next update will find nothing there. None: it is not worth a look."""
    if context < LONG or not habits.known:
        return None
    calls, life = _calls(habits), _life(hour=worth_an_hour(context, habits))
    cold, kept = habits.share(life), float(context - FIXED)

    first = cold * WEIGHTS["cache_creation"] + (1 - cold) * WEIGHTS["cache_read"]
    now = WEIGHTS["cache_read"] * kept + WEIGHTS["output"] * SUMMARY
    costs: dict[Way, int] = {
        "resume": round(first * kept + _again(kept, calls)),
        "compact": round(now + _read(SUMMARY + LEFT_OUT * kept, calls)),
    }
    way: Way = "compact" if costs["compact"] <= MARGIN * costs["resume"] else "resume"
    return Weighed(way, "cold_next", costs, _basis(habits, life, costs[way], model))


def worth_an_hour(context: int, habits: Habits) -> bool:
    """Whether prompts are to be kept for an hour and not for five minutes: where an update likely
    comes within the one and not within the other."""
    if (wanted := settings().prompt_cache) != "auto":
        return wanted == "1h"
    if context < LONG or not habits.known:
        return False
    likely = habits.share(settings().cache_ttl.total_seconds(), HOUR)
    saved = likely * (WEIGHTS["cache_creation"] - WEIGHTS["cache_read"]) * context
    return saved > (WRITTEN_HOUR - WEIGHTS["cache_creation"]) * (habits.written or context)


def _calls(habits: Habits) -> float:
    return max(1.0, habits.calls) if habits.known and habits.calls else CALLS


def _life(*, hour: bool) -> float:
    """Seconds that the provider keeps a prompt."""
    return HOUR if hour else settings().cache_ttl.total_seconds()


def _read(tokens: float, calls: float) -> float:
    """Read for the first time, and in every further request of the turn."""
    return WEIGHTS["cache_creation"] * tokens + _again(tokens, calls)


def _again(tokens: float, calls: float) -> float:
    return WEIGHTS["cache_read"] * tokens * (calls - 1)


def _basis(
    habits: Habits, life: float, cost: float, model: str | None
) -> dict[str, float | str]:
    price = prices.usd(cost, model)
    return {
        "updates": len(habits.gaps),
        "cold": round(habits.share(life), 2),
        "calls": round(_calls(habits), 1),
        "cached": life,
    } | ({"usd": price} if price is not None else {})
