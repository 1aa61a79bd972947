"""The stand-in's prompt cache accounts as the API does: prefixes, breakpoints, lifetimes."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from dev.standin.cache import LOOKBACK, PromptCache, Usage, count, estimate
from dev.standin.messages import JSON

LONG = "a long text, " * 400  # 1300 tokens
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def text(words: str, mark: JSON | None = None) -> JSON:
    return {"type": "text", "text": words} | ({"cache_control": mark} if mark else {})


def turn(*messages: JSON, system: JSON | None = None) -> JSON:
    """A request whose messages are the user's, with a long tool and a long system text."""
    return {
        "model": "claude-opus-5-5",
        "tools": [{"name": "Write", "description": LONG}],
        "system": [system or text(LONG, MARK)],
        "messages": [{"role": "user", "content": [m]} for m in messages],
    }


def test_the_same_prefix_is_read_and_only_what_is_new_is_written():
    cache = PromptCache()

    first = cache.charge(turn(text("one", MARK)), key="k")
    again = cache.charge(turn(text("one", MARK)), key="k")
    longer = cache.charge(turn(text("one"), text("two", MARK)), key="k")

    assert (first.read, first.input) == (0, 0)
    assert (again.read, again.written_5m) == (first.written_5m, 0)
    assert longer.read == first.written_5m
    assert longer.written_5m == estimate(text("two"))


def test_what_follows_the_last_breakpoint_is_plain_input():
    cache = PromptCache()

    usage = cache.charge(turn(text("not marked")), key="k")

    assert usage.input == estimate(text("not marked"))
    assert usage.written_5m == count(turn(text("not marked"))) - usage.input


def test_a_change_in_the_tools_makes_everything_unknown():
    cache = PromptCache()
    request = turn(text("one", MARK))
    cache.charge(request, key="k")

    changed = copy.deepcopy(request)
    changed["tools"][0]["name"] = "Edit"

    assert cache.charge(changed, key="k").read == 0


def test_a_change_in_the_messages_leaves_tools_and_system_known():
    cache = PromptCache()
    request = turn(text("one", MARK))
    cache.charge(request, key="k")

    other = cache.charge(turn(text("another", MARK)), key="k")
    chosen = cache.charge(request | {"tool_choice": {"type": "any"}}, key="k")

    assert other.read == chosen.read == count(request) - estimate(text("one"))


def test_keys_and_models_do_not_share():
    cache = PromptCache()
    request = turn(text("one", MARK))
    cache.charge(request, key="k")

    assert cache.charge(request, key="another").read == 0
    assert cache.charge(request | {"model": "claude-haiku-4-5"}, key="k").read == 0


def test_five_minutes_are_over_after_five_minutes_unless_renewed():
    clock = Clock()
    cache = PromptCache(clock=clock)
    request = turn(text("one", MARK))
    cache.charge(request, key="k")

    clock.now = 299
    assert cache.charge(request, key="k").read
    clock.now = 299 + 299
    assert cache.charge(request, key="k").read
    clock.now += 301
    assert cache.charge(request, key="k").read == 0


def test_an_hour_lasts_an_hour_and_is_counted_apart():
    clock = Clock()
    cache = PromptCache(clock=clock)
    request = turn(text("one", MARK), system=text(LONG, HOUR))

    first = cache.charge(request, key="k")
    clock.now = 3599
    later = cache.charge(request, key="k")

    assert first.written_5m == estimate(text("one"))
    assert first.written_1h == count(request) - first.written_5m
    assert (later.read, later.written_5m) == (first.written_1h, first.written_5m)
    clock.now += 3601
    assert cache.charge(request, key="k").read == 0


def test_a_short_prefix_is_not_kept():
    cache = PromptCache()
    request = turn(text("one", MARK)) | {"tools": [], "system": [text("short", MARK)]}

    assert cache.charge(request, key="k") == Usage(input=count(request))
    assert cache.charge(request, key="k").read == 0


def test_a_lookup_reaches_twenty_blocks_back_and_no_further():
    cache = PromptCache()
    system = text(LONG)  # no breakpoint there: only the one in the messages is kept
    cache.charge(turn(text("one", MARK), system=system), key="k")
    more = [text(str(i)) for i in range(LOOKBACK - 1)]

    within = cache.charge(turn(text("one"), *more, text("end", MARK), system=system), key="k")
    assert within.read
    assert LOOKBACK == 20

    cache = PromptCache()
    cache.charge(turn(text("one", MARK), system=system), key="k")
    beyond = cache.charge(
        turn(text("one"), *more, text("more"), text("end", MARK), system=system), key="k"
    )
    assert beyond.read == 0


def test_the_billing_header_is_no_part_of_the_prompt():
    cache = PromptCache()
    request = turn(text("one", MARK))
    headers = [text(f"x-anthropic-billing-header: cc_version={n};") for n in (1, 2)]
    cache.charge(request | {"system": [headers[0], *request["system"]]}, key="k")

    assert cache.charge(request | {"system": [headers[1], *request["system"]]}, key="k").read


@settings(deadline=None)  # it promises a count, not a time
@given(
    st.lists(
        st.lists(st.sampled_from("ab+"), min_size=1, max_size=6),
        min_size=1,
        max_size=6,
    )
)
def test_every_token_is_counted_once_and_a_repeat_writes_nothing(
    conversations: list[list[str]],
):
    cache = PromptCache()
    for words in conversations:
        *before, last = [LONG if word == "+" else word for word in words]
        request = turn(*[text(w) for w in before], text(last, MARK))
        usage = cache.charge(request, key="k")
        assert usage.total == count(request)
        repeat = cache.charge(request, key="k")
        assert (repeat.total, repeat.written_5m) == (count(request), 0)
