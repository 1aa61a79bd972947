"""What each way to go on would cost, and which is the cheapest."""

from dataclasses import replace
from itertools import accumulate

import pytest

from db.sessions.habits import Habits
from dev.bench.reader import TASKS
from dev.bench.reckoned import GAPS, costs
from tests.conftest import Configure
from worker.session.cheapest import sum_up_now, weigh, worth_an_hour

BOTH = ("resume", "compact", "fresh")


def test_a_long_session_in_the_cache_is_compacted_rather_than_left():
    assert weigh("turns", ("compact", "fresh"), context=150_000, idle=60).way == "compact"


def test_a_long_session_that_the_cache_has_lost_is_left():
    assert weigh("turns", ("compact", "fresh"), context=150_000, idle=3600).way == "fresh"


def test_a_short_session_is_not_worth_a_compaction():
    assert weigh("turns", ("compact", "fresh"), context=10_000, idle=60).way == "fresh"


def test_a_session_shorter_than_what_it_would_be_told_is_resumed(configure: Configure):
    ways = ("resume", "fresh")
    assert weigh("stale", ways, context=12_000, idle=1e6).way == "fresh"
    configure(BATON_DIGEST_CHARS="60000")
    assert weigh("stale", ways, context=12_000, idle=1e6).way == "resume"


def test_a_figure_that_no_real_session_has_is_not_trusted():
    assert weigh("stale", ("resume", "fresh"), context=20, idle=1e6).way == "fresh"


def test_the_cache_lives_as_long_as_is_set(configure: Configure):
    configure(BATON_CACHE_TTL="3600")
    warm, cold = (weigh("turns", BOTH, context=100_000, idle=s) for s in (3000, 4000))
    assert warm.costs["resume"] < cold.costs["resume"]
    assert warm.costs["fresh"] == cold.costs["fresh"]


@pytest.mark.parametrize("way", BOTH)
def test_only_the_ways_that_are_open_are_weighed(way: str):
    found = weigh("turns", (way,), context=100_000, idle=0)  # pyright: ignore[reportArgumentType]
    assert (found.way, list(found.costs), found.why) == (way, [way], "turns")


MINUTE, HOUR = 60.0, 3600.0


def rests(gap: float, *, calls: float = 8, written: float = 10_000) -> Habits:
    """A project whose updates come that many seconds apart."""
    return Habits([gap] * 6, calls, written)


def way(context: int, habits: Habits) -> str | None:
    found = sum_up_now(context, habits)
    return found.way if found else None


def test_a_conversation_is_summed_up_while_it_is_cached_if_the_next_updates_cost_less_then():
    assert way(60_000, rests(2 * HOUR)) == "compact"
    assert way(60_000, rests(MINUTE)) == "compact"  # it is read in each request
    assert way(20_000, rests(2 * HOUR)) is None  # what is forgotten is worth more
    assert way(60_000, Habits([2 * HOUR])) is None  # too little is known


def test_what_a_compaction_came_to_is_learned():
    """It left so much to be read again that the next one would not pay."""
    vain = replace(rests(MINUTE), summed=40_000.0, summed_calls=20.0)
    assert way(40_000, rests(MINUTE)) == "compact"
    assert way(40_000, vain) == "resume"


def test_prompts_are_kept_for_an_hour_where_updates_come_within_it(configure: Configure):
    assert worth_an_hour(60_000, rests(10 * MINUTE))
    assert not worth_an_hour(60_000, rests(MINUTE))
    assert not worth_an_hour(60_000, rests(2 * HOUR))
    assert not worth_an_hour(60_000, rests(10 * MINUTE, written=200_000))
    configure(BATON_PROMPT_CACHE="1h")
    assert worth_an_hour(60_000, rests(MINUTE))
    configure(BATON_PROMPT_CACHE="5m")
    assert not worth_an_hour(60_000, rests(10 * MINUTE))


def test_with_an_hour_of_cache_the_next_update_is_warm():
    def resumed(written: float) -> int:
        found = sum_up_now(60_000, rests(10 * MINUTE, written=written))
        assert found
        return found.costs["resume"]

    assert resumed(10_000) < resumed(200_000)  # an hour is not worth so much


def test_what_another_version_of_the_cli_wrote_is_cold():
    ours, others = (
        weigh("cold", ("resume",), context=60_000, idle=10, changed=changed)
        for changed in (False, True)
    )
    assert others.costs["resume"] > ours.costs["resume"]


def test_a_cold_session_is_compacted_first_only_if_that_saves_a_tenth():
    ways = ("resume", "compact")
    short, long = (weigh("cold", ways, context=n, idle=HOUR) for n in (40_000, 100_000))
    assert (short.way, long.way) == ("resume", "compact")


def test_the_price_is_told_of_models_whose_family_is_known(configure: Configure):
    def usd(model: str) -> object:
        found = weigh("cold", ("resume",), context=100_000, idle=HOUR, model=model)
        return found.basis.get("usd")

    assert usd("claude-opus-5-5") == pytest.approx(5 * 0.2014, rel=0.01)
    assert usd("something") is None
    configure(BATON_PRICES="opus=10,some=1.5")
    assert usd("claude-opus-5-5") == pytest.approx(10 * 0.2014, rel=0.01)
    assert usd("something") == pytest.approx(1.5 * 0.2014, rel=0.01)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("gap", GAPS)
def test_no_fixed_policy_costs_less_where_money_decides(
    task: str, gap: str, configure: Configure
):
    configure(BATON_LONG_SESSIONS="cheapest")
    paid = list(accumulate(costs(TASKS[task], "cheapest", GAPS[gap], 50)))
    for policy in ("fresh", "resume", "resume+compact"):
        fixed = list(accumulate(costs(TASKS[task], policy, GAPS[gap], 50)))
        for updates in (6, 20, 50):
            assert paid[updates - 1] <= 1.05 * fixed[updates - 1], (policy, updates)


def test_a_long_session_is_left_for_its_cost_only_if_it_is_so_set(configure: Configure):
    """Of a project that rests two hours, a fresh session costs least: that is told in any case."""
    known = replace(rests(2 * HOUR), begun=20_000.0, begun_calls=12.0)
    found = weigh("cold", ("resume", "compact"), context=60_000, idle=2 * HOUR, habits=known)
    assert int(found.basis["fresh"]) < min(found.costs.values())
    configure(BATON_LONG_SESSIONS="cheapest")
    end = sum_up_now(60_000, known)
    assert end
    assert end.way == "resume"  # the next one will begin fresh
