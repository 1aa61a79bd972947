"""Settings: each value by itself, what they are to each other, and names that are nobody's."""

import os
from datetime import timedelta
from pathlib import Path

import certifi
import pytest
from hypothesis import assume, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from config.rules import RULES, advice, check
from config.settings import (
    Asking,
    BadSettings,
    Settings,
    asking,
    name,
    number,
    read,
    settings,
    span,
)
from config.start import unknown
from tests.conftest import Configure
from worker.failures.retry import backoff
from worker.job import lease

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("BATON_TURN_TIMEOUT", "inf", "a number of seconds that ends"),
        ("BATON_TURN_TIMEOUT", "-inf", "a number of seconds that ends"),
        ("BATON_TURN_TIMEOUT", "nan", "a number of seconds that ends"),
        ("BATON_TURN_TIMEOUT", "1e300", "a number of seconds that ends"),
        ("BATON_TURN_TIMEOUT", "soon", "a number of seconds, or ISO 8601 such as PT1H"),
        ("BATON_TURN_TIMEOUT", "-5", "from 0.1 to 604800 seconds"),
        ("BATON_TURN_TIMEOUT", "0", "from 0.1 to 604800 seconds"),
        ("BATON_TURN_TIMEOUT", "P8D", "from 0.1 to 604800 seconds"),
        ("BATON_LEASE", "0.001", "from 1 to 3600 seconds"),
        ("BATON_SLOTS", "0", "from 1 to 256"),
        ("BATON_SLOTS", "1000000", "from 1 to 256"),
        ("BATON_SLOTS", "two", "a whole number"),
        ("BATON_SLOTS", "1.5", "a whole number"),
        ("BATON_ATTEMPTS", "0", "from 1 to 100"),
        ("BATON_BUDGET_USD", "inf", "from 0.01 to 1000000"),
        ("BATON_BUDGET_USD", "-1", "from 0.01 to 1000000"),
        ("BATON_COMPACT_THRESHOLD", "nan", "from 0.05 to 1"),
        ("BATON_COMPACT_THRESHOLD", "1.01", "from 0.05 to 1"),
        ("BATON_STRUCTURAL_CHANGE", "0", "from 0.01 to 1"),
        ("BATON_COMPACT", "sometimes", "'auto', 'always' or 'never'"),
        ("BATON_PLAIN_CELERY", "perhaps", "true or false"),
        ("BATON_WORKSPACES", "/", "a directory of its own"),
        ("BATON_WORKSPACE_REMOTE", "ftp://git/{project}", "a file, ssh or https URL"),
        ("BATON_BOX_READ", "/srv/fonts:fonts", "absolute paths"),
        ("BATON_BOX_READ", "//", "absolute paths"),
        ("DATABASE_URL", f"mysql://me:{SECRET}@host/shop", "postgresql://"),
        ("DATABASE_URL", f"postgresql://me:{SECRET}%@host/shop", "postgresql://"),
        ("REDIS_URL", f"http://:{SECRET}@host:6379", "redis://host:port/0"),
        ("REDIS_URL", f"redis://:{SECRET}@host:6379/3", "redis://host:port/0"),
        ("REDIS_URL", f"redis://:{SECRET}@host:port/0", "redis://host:port/0"),
        ("ANTHROPIC_BASE_URL", "api.example.com", "an http or https URL"),
        ("ANTHROPIC_API_KEY", f"sk-{SECRET}\nX-Other: 1", "printable ASCII"),
    ],
)
def test_a_value_that_cannot_be_is_told_in_one_sentence_without_secrets(
    variable: str, value: str, says: str, configure: Configure
):
    configure(**{variable: value})
    with pytest.raises(BadSettings) as refused:
        settings()
    told = str(refused.value)
    assert told.startswith(f"{variable} is not usable: it must be ")
    assert says in told
    assert told.endswith(".")
    assert "\n" not in told
    assert SECRET not in told


@pytest.mark.parametrize(
    "value",
    ["postgresql://me:p%40ss@[::1]:5432/shop?sslmode=require", "host=/run/pg dbname=shop"],
)
def test_a_database_is_named_in_any_way_that_psycopg_reads(value: str, configure: Configure):
    configure(DATABASE_URL=value)
    assert settings().database_url.get_secret_value() == value


def test_a_key_with_a_line_end_behind_it_is_the_key(configure: Configure):
    configure(ANTHROPIC_API_KEY="sk-1\n")
    assert settings().anthropic_api_key.get_secret_value() == "sk-1"


# What breaks each rule: where a value follows, somebody has to have set it.
BROKEN = [
    {"BATON_LEASE": "5", "BATON_RENEW_EVERY": "10"},
    {"BATON_LEASE": "5", "BATON_CANCEL_POLL": "1"},
    {"BATON_RENEW_EVERY": "20"},
    {"BATON_TURN_TIMEOUT": "300", "BATON_IDLE_TIMEOUT": "600"},
    {"BATON_IDLE_TIMEOUT": "20"},
    {"BATON_BACKOFF_FIRST": "600", "BATON_BACKOFF_MAX": "60"},
    {"BATON_PUBLISH_AFTER": "60", "BATON_PUBLISH_AGAIN_MAX": "30"},
    {"BATON_CHECKPOINT_TTL": "15"},
    {"BATON_JOBS_KEPT": "3600"},
    {"BATON_TURN_TIMEOUT": "604800"},
    {"BATON_TRANSCRIPTS_KEPT": "7000"},
    {"BATON_BACKOFF_MAX": "604800"},
    {"BATON_CONTEXT_WINDOW": "1000", "BATON_DIGEST_CHARS": "12000"},
    {"REDIS_URL": "redis://host", "BATON_REDIS_CA": certifi.where()},
    {"BATON_WORKSPACES": "/srv/baton", "BATON_AGENT_HOME": "/srv/baton/agent"},
    {"BATON_WORKSPACES": "/srv/baton/files", "BATON_AGENT_HOME": "/srv/baton"},
    {"BATON_WORKSPACES": "/srv/files", "BATON_WORKSPACE_REMOTE": "file:///srv/{project}"},
    {"BATON_WORKSPACES": "/srv", "BATON_WORKSPACE_REMOTE": "file:///srv/git/{project}.git"},
    {"BATON_WORKSPACES": "/srv/baton/files", "BATON_BOX_READ": "/opt/node:/srv"},
    {"BATON_AGENT_HOME": "/srv/baton", "BATON_BOX_READ": "/srv/baton"},
]


@pytest.mark.parametrize("given", BROKEN, ids=" ".join)
def test_what_breaks_another_setting_is_told_with_both_names(
    given: dict[str, str], configure: Configure
):
    configure(**given)
    told = next(advice(settings()), "")
    if told:
        check(settings())
    else:
        with pytest.raises(BadSettings) as refused:
            check(settings())
        told = str(refused.value)
    assert all(f"{one} (" in told for one in given if one != "REDIS_URL")  # it has a password
    assert told.endswith(".")
    assert "\n" not in told


def test_each_rule_has_something_that_breaks_it(configure: Configure):
    broken = set[str]()
    for values in BROKEN:
        configure(**values)
        broken |= {rule.why for rule in RULES if rule.broken_by(settings())}
        configure(**dict.fromkeys(values))
    assert broken == {rule.why for rule in RULES}


@pytest.mark.parametrize(
    ("values", "field", "follows"),
    [
        ({"BATON_LEASE": "5"}, "renew_every", timedelta(seconds=5) / 3),
        ({"BATON_LEASE": "5"}, "cancel_poll", timedelta(seconds=0.5)),
        ({"BATON_LEASE": "600"}, "cancel_poll", timedelta(seconds=1)),
        ({"BATON_TURN_TIMEOUT": "60"}, "idle_timeout", timedelta(seconds=60)),
        ({"BATON_CONTEXT_WINDOW": "2000"}, "digest_chars", 4000),
        ({"BATON_WORKER_SILENT_AFTER": "6"}, "report_every", timedelta(seconds=2)),
    ],
)
def test_what_is_not_set_follows_what_is(
    values: dict[str, str], field: str, follows: object, configure: Configure
):
    configure(**values)
    check(settings())
    assert getattr(settings(), field) == follows


def test_the_tenth_try_waits_an_hour_and_not_eleven_days(configure: Configure):
    configure(BATON_ATTEMPTS="10")
    assert max(backoff(9) for _ in range(100)) <= timedelta(hours=1)
    assert backoff(10**6) <= timedelta(hours=1)


@pytest.mark.parametrize("first", ["0.1", "3600"])
def test_the_longest_wait_is_reached_from_any_first_one(first: str, configure: Configure):
    configure(BATON_BACKOFF_FIRST=first, BATON_BACKOFF_MAX="604800")
    assert max(backoff(100) for _ in range(100)) > timedelta(days=1)


@pytest.mark.parametrize("value", ["BATON_LEASE=soon", "BATON_SLOTS=0", "REDIS_URL=http://x"])
def test_a_producer_is_not_refused_for_what_only_workers_use(value: str, configure: Configure):
    variable, _, text = value.partition("=")
    configure(**{variable: text, "DATABASE_URL": "postgresql://h/d"})
    assert asking().database_url.get_secret_value() == "postgresql://h/d"
    with pytest.raises(BadSettings):
        settings()


def test_a_producer_is_refused_for_what_it_uses(configure: Configure):
    configure(BATON_PROMPT_LIMIT="none")
    with pytest.raises(BadSettings, match="BATON_PROMPT_LIMIT"):
        read(Asking)


def test_a_name_that_is_no_setting_is_told_with_the_nearest(configure: Configure):
    configure(BATON_SLOT="3", BATON_UP="ours", baton_leese="5")
    Path(".env").write_text("BATON_WORKSPACE=/srv\nBATON_SLOTS=3\nOTHER=1\nBATON_ZZZ_QQQ=1\n")
    assert list(unknown()) == [
        "BATON_LEESE is not a setting and does nothing: did you mean BATON_LEASE?",
        "BATON_SLOT is not a setting and does nothing: did you mean BATON_SLOTS?",
        "BATON_WORKSPACE is not a setting and does nothing: did you mean BATON_WORKSPACES?",
        "BATON_ZZZ_QQQ is not a setting and does nothing: .env.example lists all there are.",
    ]


def test_an_env_file_that_is_no_text_is_told(configure: Configure):
    Path(".env").write_bytes(b"BATON_SLOTS=3\n\xff=1\n")
    configure()
    with pytest.raises(BadSettings, match=r"/\.env cannot be read: it is not UTF-8\.$"):
        settings()


NUMBERS = [field for field in Settings.model_fields if span(field)]


@st.composite
def environments(draw: st.DrawFn) -> dict[str, str]:
    """Any numbers that are each within their range, most often at one of its ends."""
    chosen = draw(st.lists(st.sampled_from(NUMBERS), unique=True, max_size=8))
    return {name(field): number(draw(_value(field))) for field in chosen}


def _value(field: str) -> st.SearchStrategy[timedelta | int | float]:
    found = span(field)
    assert found
    least, most = found
    ends = st.sampled_from(found)
    if isinstance(most, timedelta):
        return ends | st.integers(
            int(least.total_seconds()) + 1, int(most.total_seconds())
        ).map(lambda seconds: timedelta(seconds=seconds))
    if isinstance(least, int):
        return ends | st.integers(least, most)
    return ends | st.floats(least, most).map(lambda value: round(value, 3))


@trying(max_examples=15, deadline=None)
@given(environments())
def test_no_combination_that_is_accepted_is_absurd(env: dict[str, str]):
    with pytest.MonkeyPatch.context() as here:
        for variable, value in env.items():
            here.setenv(variable, value)
        settings.cache_clear()
        try:
            check(settings())
        except BadSettings:
            assume(False)
        assume(not list(advice(settings())))
        _is_sound(settings())
    settings.cache_clear()


def _is_sound(found: Settings) -> None:
    """What is derived from them, as those who use them do it."""
    second_try = 2 * (found.renew_every + found.cancel_poll)
    assert (
        found.renew_every + found.cancel_poll < found.lease * (lease.MARGIN - 1) / lease.MARGIN
    )
    assert second_try <= found.lease, "a renewal that failed is tried again before the end"
    waits = [backoff(attempt) for attempt in range(1, found.attempts + 1)]
    assert all(timedelta(seconds=1) <= w <= max(found.backoff_max, timedelta(seconds=1)) for w in waits)  # fmt: skip
    assert timedelta(minutes=10) < found.hard_limit < found.delivered_again <= found.jobs_kept
    assert found.delivered_again < timedelta(days=60), "a lost message is not lost for ever"
    assert found.idle_timeout <= found.turn_timeout < found.hard_limit
    assert 2 * found.report_every < found.worker_silent_after
    assert found.publish_after <= found.publish_again_max
    assert found.digest_chars <= 2 * found.context_window
    for ttl in (found.checkpoint_ttl, found.events_ttl):
        assert int(ttl.total_seconds()) >= 1, "Redis counts whole seconds"


@pytest.mark.parametrize("which", [0, 1], ids=["least", "most"])
def test_a_value_at_the_end_of_its_range_is_accepted(which: int, configure: Configure):
    for field in NUMBERS:
        ends = span(field)
        assert ends
        configure(**{name(field): number(ends[which])})
        assert getattr(settings(), field) == ends[which]
        configure(**{name(field): None})


def test_the_tests_themselves_have_no_setting_of_the_machine():
    assert [key for key in os.environ if key.startswith("BATON_")] == []
