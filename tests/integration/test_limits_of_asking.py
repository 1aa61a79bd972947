"""What a request may say, and how often: one rule in Postgres, so that it holds at every door."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import Connection, sql

from db.core import ledger_settings
from db.core.codes import refusal
from db.jobs import listing
from db.jobs.jobs import NEVER
from db.jobs.listing import Wanted
from tests.commandline import Baton, bare, baton
from tests.conftest import Configure
from tests.ledger import ask, at_once, begun, commit, finish, job_row, one
from worker.client import Build, Refused, TooManyRequests, enqueue, retry

__all__ = ["bare", "baton"]

# Each argument as SQL may have it, and what is said.
ODD: list[tuple[LiteralString, str]] = [
    ("run_at => 'infinity'", "run_at must be a time from"),
    ("run_at => '-infinity'", "run_at must be a time from"),
    ("run_at => '20000-01-01'", "run_at must be a time from"),
    ("run_at => '4000-01-01 BC'", "run_at must be a time from"),
    ("run_at => now() + interval '11 years'", "run_at must be a time from"),
    ("publish_after => 'infinity'", "publish_after is for the next moments"),
    ("publish_after => now() + interval '1 day'", "publish_after is for the next moments"),
    ("priority => 1000001", "priority must be a whole number"),
    ("priority => -1000001", "priority must be a whole number"),
    ("priority => 10000000000000000000000", "priority must be a whole number"),
    ("priority => 0.5", "priority must be a whole number"),
    ("priority => 'NaN'", "priority must be a whole number"),
    ("max_turns => 'NaN'", "max_turns must be a whole number"),
    ("max_turns => -1", "max_turns must be a whole number"),
    ("max_turns => 1.5", "max_turns must be a whole number"),
    ("budget => 'NaN'", "budget must be an amount"),
    ("budget => 'infinity'", "budget must be an amount"),
    ("budget => -0.01", "budget must be an amount"),
    ("budget => 1e-20", "budget must be an amount"),
    ("options => '{\"budget\": 1e400}'", "budget must be an amount"),
    ("key => ''", "The key must be 1 to 200"),
    ("key => repeat('é', 201)", "The key must be 1 to 200"),
    ("version => ''", "The version id must be"),
    ("version => E'v\\n'", "The version id must be"),
    ("model => ''", "model must be the name"),
    ("model => E'm\\u202e'", "model must be the name"),
    ("on_lost => ''", "on_lost must be"),
    ("template => ''", "The name of the template must be"),
    ("workspace => ''", "must be an absolute path"),
    ("workspace => E'/srv/a\\nb'", "must be an absolute path"),
    ("workspace => '/srv/' || repeat('é', 128)", "must be an absolute path"),
    ("branch_from => ''", "branch_from is not a UUID"),
    ("previous_session_id => ''", "The previous session id is not a UUID"),
    ("prompt => E'\\u200b\\ufeff\\u3000'", "The prompt is empty"),
    ("prompt => repeat('x', 200001)", "200001 bytes and the limit is 200000"),
    ("prompt => repeat('x', 3000000), prompt_limit => 4000000", "the limit is 200000"),
    ("prompt_limit => 3", "7 bytes and the limit is 3"),
    ("model => 'a', options => '{\"model\": \"b\"}'", "model is given twice"),
    ("options => '7'", "options must be a JSON object"),
]


def test_each_argument_has_its_rule_in_sql(conn: Connection, subtests: pytest.Subtests):
    for odd, sentence in ODD:
        with subtests.test(odd):
            beside = sql.SQL("" if odd.startswith("prompt =>") else "prompt => 'make it', ")
            query = sql.SQL("select baton_enqueue('build', 'p', 'u', {}{})")
            with pytest.raises(psycopg.Error, match=sentence) as told:
                conn.execute(query.format(beside, sql.SQL(odd)))
            assert refusal(told.value)
    assert one(conn, "select count(*) from jobs") == 0


# What no driver could bring to Postgres, or no system takes for a path.
BEYOND: list[tuple[dict[str, Any], str]] = [
    ({"budget": Decimal("1e500")}, "budget must be an amount"),
    ({"budget": Decimal("-1e500")}, "budget must be an amount"),
    ({"priority": 10**400}, "priority must be a whole number"),
    ({"priority": -(10**400)}, "priority must be a whole number"),
    ({"max_turns": 10**5000}, "max_turns must be a whole number"),
    ({"check": "true", "check_tries": 10**5000}, "check_tries must be a whole number"),
    ({"check": "true", "race": 10**5000}, "race must be a whole number"),
    ({"workspace": "/" + "x" * 300}, "must be an absolute path"),
]


def test_each_argument_has_its_rule_in_python(conn: Connection, subtests: pytest.Subtests):
    for n, (odd, sentence) in enumerate(BEYOND):
        with subtests.test(f"{n} {next(iter(odd))}"):
            asked = Build.model_validate({"project": "p", "user": "u", "prompt": "x", **odd})
            with pytest.raises(Refused, match=sentence):
                enqueue(conn, asked)
    assert one(conn, "select count(*) from jobs") == 0


def test_what_is_named_and_what_is_among_the_options_is_one_request(conn: Connection):
    named = ask(conn, key="k", model="m", max_turns=3, budget=0.50, on_lost="ask")
    options = {"model": "m", "max_turns": 3, "budget": 0.5, "on_lost": "ask"}
    assert ask(conn, key="k", options=options) == named
    again = Build(
        project="p",
        user="u",
        prompt="make it",
        key="k",
        model="m",
        max_turns=3,
        budget=0.5,  # pyright: ignore[reportArgumentType]
        on_lost="ask",
    )
    assert enqueue(conn, again).id == named
    assert job_row(conn, named, "args -> 'budget'") == 0.5


def test_old_clients_go_on_to_ask_as_they_did(conn: Connection):
    """By name, as a release before does that is not replaced yet; and by place."""
    given: dict[str, Any] = {"priority": 3, "options": {"model": "m"}, "prompt_limit": 200_000}
    for name in ("version", "key", "run_at", "previous_session_id", "id", "publish_after"):
        given[name] = None
    by_name = ask(conn, "build", "p", busy="enqueue", **given)
    assert job_row(conn, by_name, "args ->> 'model', priority") == ("m", 3)
    by_place = one(
        conn,
        "select baton_enqueue('update', 'p', 'u', 'x', null, null, 'enqueue', 0, null, null,"
        " '{}', null, now() + interval '2 s', 1000)",
    )
    assert job_row(conn, by_place) == "queued"


def test_no_row_can_hold_a_time_that_hides_the_others(conn: Connection):
    asked = ask(conn)
    for column in ("run_at", "publish_after"):
        for value in ("infinity", "-infinity", "20000-01-01"):
            query = sql.SQL("update jobs set {} = {}").format(
                sql.Identifier(column), sql.Literal(value)
            )
            with pytest.raises(psycopg.errors.CheckViolation):
                conn.execute(query)
    conn.execute("update jobs set run_at = %s", (NEVER,))
    assert [job.id for job in listing.jobs(conn, Wanted())] == [asked]


@pytest.fixture
def asks(dsn: str) -> Callable[[dict[str, Any]], psycopg.DatabaseError | None]:
    """Ask with what hypothesis thinks of, and leave nothing; returns what Postgres says to it."""

    def work(given: dict[str, Any]) -> psycopg.DatabaseError | None:
        query = sql.SQL("select baton_enqueue({})").format(
            sql.SQL(", ").join(
                sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name))
                for name in given
            )
        )
        with psycopg.connect(dsn) as own:
            try:
                own.execute(query, given)
            except psycopg.DatabaseError as exc:
                return exc
            own.rollback()
        return None

    return work


NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.decimals(allow_nan=False, allow_infinity=False, places=4),
    st.just(Decimal("NaN")),
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=220)
TIMES = st.datetimes(timezones=st.just(UTC))


def test_whatever_is_asked_is_taken_whole_or_refused_with_a_sentence(
    asks: Callable[[dict[str, Any]], psycopg.DatabaseError | None],
):
    @settings(max_examples=60, deadline=None)
    @given(
        st.fixed_dictionaries(
            {},
            optional={
                **dict.fromkeys(("kind", "project", "user_id", "busy", "prompt", "key"), TEXTS),
                **dict.fromkeys(
                    ("version", "model", "on_lost", "workspace", "template"), TEXTS
                ),
                **dict.fromkeys(("previous_session_id", "branch_from"), TEXTS),
                **dict.fromkeys(("priority", "max_turns", "budget"), NUMBERS),
                **dict.fromkeys(("run_at", "publish_after"), TIMES),
            },
        )
    )
    def each(more: dict[str, Any]) -> None:
        asked = {"kind": "build", "project": "p", "user_id": "u", "prompt": "make it"} | more
        if error := asks(asked):
            why = refusal(error)
            assert why, error
            assert why.sentence.endswith(".")
            assert why.field

    each()


def test_the_prompts_limit_is_the_ledgers_and_nobody_can_raise_it(
    conn: Connection, configure: Configure
):
    configure(BATON_PROMPT_LIMIT="20")
    ledger_settings.tell(conn)
    tries: list[dict[str, Any]] = [{}, {"prompt_limit": 1000}, {"prompt_limit": None}]
    for more in tries:
        with pytest.raises(psycopg.Error, match="21 bytes and the limit is 20"):
            ask(conn, prompt="x" * 21, **more)
    assert ask(conn, prompt="x" * 20)


def test_migrating_tells_what_is_set_and_a_worker_all(conn: Connection, dsn: str, baton: Baton):
    assert baton("migrate").code == 0
    assert ledger_settings.held(conn) == {}
    assert baton("migrate", BATON_USER_RATE="7", BATON_WORKSPACES="/srv/w").code == 0
    assert ledger_settings.held(conn) == {"user_rate": 7, "workspaces": ["/srv/w"]}
    ledger_settings.tell(conn)
    assert ledger_settings.held(conn)["prompt_limit"] == 200_000


def test_doctor_names_what_is_set_otherwise_than_the_ledger_goes_by(
    conn: Connection, baton: Baton, configure: Configure
):
    configure(BATON_USER_RATE="7")
    ledger_settings.tell(conn)
    told = baton("doctor", BATON_USER_RATE="8")
    assert "BATON_USER_RATE: the ledger goes by other values" in told.out
    assert (
        "the ledger goes by those that are set here" in baton("doctor", BATON_USER_RATE="7").out
    )


@pytest.fixture
def rate(conn: Connection, configure: Configure) -> int:
    """A user may ask for so many jobs in a minute."""
    configure(BATON_USER_RATE="3")
    ledger_settings.tell(conn)
    return 3


def test_a_user_asks_for_so_many_jobs_in_a_minute_and_hears_when_to_come_again(
    conn: Connection, rate: int
):
    for number in range(rate):
        ask(conn, project=f"p{number}")
    with pytest.raises(TooManyRequests, match="3 jobs within a minute") as told:
        enqueue(conn, Build(project="p0", user="u", prompt="x"))
    assert told.value.again_at
    first = one(conn, "select asked[1] from user_asks")
    assert told.value.again_at == first + timedelta(minutes=1)
    assert ask(conn, project="other", user_id="another")
    conn.execute(
        "update user_asks set asked[1] = asked[1] - interval '1 minute' where user_id = 'u'"
    )
    assert ask(conn), "a minute later"


def test_what_is_sent_again_or_refused_does_not_count(conn: Connection, dsn: str, rate: int):
    first = ask(conn, key="k")
    for _ in range(2 * rate):
        assert ask(conn, key="k") == first
        with pytest.raises(psycopg.Error, match="The project is busy"):
            ask(conn, busy="reject")
        with psycopg.connect(dsn) as producer:
            ask(producer)
            producer.rollback()
    assert [ask(conn) for _ in range(rate - 1)]


def test_of_many_that_ask_at_once_no_more_than_the_limit_are_taken(
    conn: Connection, dsn: str, rate: int
):
    found = at_once(dsn, lambda own: ask(own, project=f"p{own.info.backend_pid}"))
    refused = [each for each in found if isinstance(each, psycopg.Error)]
    assert len(found) - len(refused) == rate
    assert {each.sqlstate for each in refused} == {"BA008"}
    twice = at_once(dsn, lambda own: ask(own, user_id="v", project="v", key="k"))
    assert len(set(twice)) == 1, "one key is one request"
    assert ask(conn, user_id="v", project="v2")


def test_a_retry_counts_and_what_follows_in_a_chain_does_not(conn: Connection, rate: int):
    job = begun(conn)
    finish(conn, job, "failed")
    for _ in range(rate - 1):
        assert retry(conn, job.id)
    with pytest.raises(TooManyRequests):
        retry(conn, job.id)


def test_the_minute_is_that_of_the_clock_and_not_of_the_transaction(
    conn: Connection, dsn: str, rate: int
):
    with psycopg.connect(dsn) as slow:
        slow.execute("select now()")
        for number in range(rate):
            ask(conn, project=f"p{number}")
        with pytest.raises(psycopg.Error, match="within a minute"):
            ask(slow, project="late")


def test_without_a_limit_nothing_is_noted(conn: Connection):
    commit(conn, begun(conn))
    assert one(conn, "select count(*) from user_asks") == 0


def test_a_date_that_comes_is_asked_for_as_before(conn: Connection):
    soon = datetime.now(UTC) + timedelta(days=3650 - 3)
    assert job_row(conn, ask(conn, run_at=soon), "run_at") == soon
    assert claim_due(conn, ask(conn, project="q", run_at=datetime(2001, 1, 1, tzinfo=UTC)))


def claim_due(conn: Connection, job: Any) -> bool:
    return one(conn, "select run_at <= now() from jobs where id = %s", job)
