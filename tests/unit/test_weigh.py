"""What each way to go on would cost, and which is the cheapest."""

import pytest

from tests.conftest import Configure
from worker.session.cheapest import weigh

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
