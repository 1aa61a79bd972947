"""Whether a session that is old, long or out of the provider's cache is worth resuming, worth a
compaction, and worth an hour of that cache: what each way would cost.

    resume   its whole context is read: cheap while the provider's prompt cache holds it
    compact  it is read once, to be summed up; then the summary is read
    fresh    the digest is read, and what such a session of the project read at its beginning

In tokens of plain input (db/sessions/costs.py), of an update with all legs of its chain. To compact
or to begin fresh is dear once and makes the next updates cheaper, so what counts of them is the
mean of as many updates as make it least. docs/cost.md says what is measured of the constants.
"""

from dataclasses import dataclass, field
from typing import Literal

from config.settings import settings
from db.sessions.costs import WEIGHTS
from db.sessions.habits import NONE, Habits
from worker.session import prices

Way = Literal["resume", "compact", "fresh"]

CALLS = 8  # requests of a usual update, with all legs of its chain
FIRST_CALLS = 12  # and of one that begins from nothing, or from a summary
GROWN = 4_000  # tokens that an update adds
SUMMARY = 3_000  # tokens of a compaction's summary
FOUND_OUT_AGAIN = 0.3  # share of the context that a fresh session reads once more
LEFT_OUT = 0.1  # and one that goes on from a summary
MEAN = 0.7  # of the context that an update ends with, what it had on the way, if it began from little
CHARS = 4  # of a token, about
# Tokens; the CLI's own prompt and a digest are longer, so a smaller figure is not to be trusted.
LEAST = 12_000
FIXED = 7_000  # tokens of the tools and the system prompt, in every context
HOUR_FROM = 2 * FIXED  # tokens of context from which on the project's past is looked at
LONG = 27_000  # and from which on its conversation may be summed up: less is worth keeping as it is
MOST = 50  # updates that are looked ahead
WRITTEN_HOUR = 2.0  # what writing to the cache for an hour costs
MARGIN = 0.9  # of what going on as it is costs: a compaction also forgets, and takes time
HOUR = 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class Kept:
    """How many seconds the provider keeps a prompt, and what a token that is written costs then."""

    seconds: float
    written: float


@dataclass(frozen=True, slots=True)
class Weighed:
    """The cheapest way, why there was a choice to make, and what each way would cost. `basis`:
    what was known of the project, for people; and what a fresh session would cost, where none is
    to begin for its cost."""

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
    context, kept = max(context, LEAST), _kept(context, habits)
    each = _costs(context, habits, kept, cold=changed or cold(context, idle, habits))
    costs: dict[Way, int] = {way: each[way] for way in ways}
    way = min(costs, key=lambda way: costs[way])
    if way == "compact" and "resume" in costs and costs[way] > MARGIN * costs["resume"]:
        way = "resume"
    basis = _basis(habits, kept, costs[way], model)
    return Weighed(way, why, costs, basis | _beside(ways, each["fresh"]))


def long() -> int:
    """Tokens of context from which on more is looked at than age and number of turns."""
    return HOUR_FROM if _for_cost() else LONG


def _for_cost() -> bool:
    """Whether money decides, and not what a conversation is worth."""
    return settings().long_sessions == "cheapest"


def sum_up_now(context: int, habits: Habits, *, model: str | None = None) -> Weighed | None:
    """At the end of a chain, while all is in the cache: whether to compact although the session is
    not too long, because it will be read too often, or cold. None: it is not worth a look."""
    if context < long() or not habits.known:
        return None
    kept = _kept(context, habits)
    each = _costs(context, habits, kept, cold=False) | {
        "resume": round(_update(context, habits, kept))
    }
    ways: tuple[Way, ...] = ("resume", "compact")
    costs: dict[Way, int] = {way: each[way] for way in ways}
    otherwise = costs["resume"]
    if _for_cost():
        otherwise = min(otherwise, each["fresh"])  # the next update may begin so
    way: Way = "compact" if costs["compact"] <= MARGIN * otherwise else "resume"
    basis = _basis(habits, kept, costs[way], model)
    return Weighed(way, "next", costs, basis | _beside(ways, each["fresh"]))


def worth_an_hour(context: int, habits: Habits) -> bool:
    """Whether prompts are to be kept for an hour and not for five minutes: where an update likely
    comes within the one and not within the other."""
    if (wanted := settings().prompt_cache) != "auto":
        return wanted == "1h"
    if context < HOUR_FROM or not habits.known:
        return False
    likely = habits.share(settings().cache_ttl.total_seconds(), HOUR)
    saved = likely * (WEIGHTS["cache_creation"] - WEIGHTS["cache_read"]) * context
    return saved > (WRITTEN_HOUR - WEIGHTS["cache_creation"]) * (habits.written or context)


def cold(context: int, idle: float, habits: Habits) -> bool:
    """Whether the provider's cache has lost a session: it was kept as was worth it before this rest."""
    return idle >= _kept(context, habits.before()).seconds


def _kept(context: int, habits: Habits) -> Kept:
    if worth_an_hour(context, habits):
        return Kept(HOUR, WRITTEN_HOUR)
    return Kept(settings().cache_ttl.total_seconds(), WEIGHTS["cache_creation"])


def _costs(context: int, habits: Habits, kept: Kept, *, cold: bool) -> dict[Way, int]:
    """Of each way, an update: this one, or on average until it would be taken again."""
    first = kept.written if cold else WEIGHTS["cache_read"]
    summed, begun = _summed(context, habits), _begun(context, habits)
    summing = WEIGHTS["output"] * (habits.summary or SUMMARY) + _begins(
        summed, habits.summed_calls or (habits.begun_calls if _for_cost() else None), kept
    )
    costs: dict[Way, float] = {
        "resume": _goes_on(context, habits, kept, first),
        "compact": _mean(first * context + summing, summed, habits, kept),
        "fresh": _mean(_begins(begun, habits.begun_calls, kept), begun, habits, kept),
    }
    return {way: round(cost) for way, cost in costs.items()}


def _mean(first: float, tokens: float, habits: Habits, kept: Kept) -> float:
    """An update, on average: the `first` one ends with so many tokens, is gone on from as long as
    that costs less than to begin so again, and so on. Of a project without a past, the first."""
    spent, mean, grown = first, first, habits.grown or GROWN
    for number in range(1, min(len(habits.gaps) + 1, MOST) if habits.known else 1):
        more = _update(tokens + (number - 1) * grown, habits, kept)
        if more >= mean:
            break
        spent += more
        mean = spent / (number + 1)
    return mean


def _summed(context: float, habits: Habits) -> float:
    """Tokens that the first update after a compaction ends with: as the last one, if there was.
    Where money decides, nothing better is hoped for than of a fresh session."""
    known = habits.summed or (habits.begun if _for_cost() else None)
    return known or FIXED + SUMMARY + LEFT_OUT * max(0, context - FIXED)


def _begun(context: float, habits: Habits) -> float:
    """And those of one that begins fresh."""
    told = settings().digest_chars / CHARS
    return habits.begun or FIXED + told + FOUND_OUT_AGAIN * max(0, context - FIXED)


def _begins(tokens: float, calls: float | None, kept: Kept) -> float:
    """An update that begins from little, and ends with so many tokens."""
    again = WEIGHTS["cache_read"] * MEAN * tokens * max(0, (calls or FIRST_CALLS) - 1)
    return kept.written * tokens + again


def _goes_on(tokens: float, habits: Habits, kept: Kept, first: float) -> float:
    """An update on so many tokens, which costs `first` of them to be read for the first time."""
    grown, calls = habits.grown or GROWN, habits.calls or CALLS
    again = WEIGHTS["cache_read"] * (tokens + grown / 2) * max(0, calls - 1)
    return first * tokens + kept.written * grown + again


def _update(tokens: float, habits: Habits, kept: Kept) -> float:
    """One of the next updates, which finds its context in the cache as often as those before."""
    part = habits.share(kept.seconds)
    first = part * kept.written + (1 - part) * WEIGHTS["cache_read"]
    return _goes_on(tokens, habits, kept, first)


def _basis(
    habits: Habits, kept: Kept, cost: float, model: str | None
) -> dict[str, float | str]:
    price = prices.usd(cost, model)
    return {
        "updates": len(habits.gaps),
        "cold": round(habits.share(kept.seconds), 2),
        "calls": round(habits.calls or CALLS, 1),
        "cached": kept.seconds,
    } | ({"usd": price} if price is not None else {})


def _beside(ways: tuple[Way, ...], fresh: int) -> dict[str, float | str]:
    return {} if "fresh" in ways else {"fresh": fresh}
