"""Budgets of a job, a project, a user, an account and a day: looked at before each turn, and
overshoot booked."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import Connection

from db.jobs import jobs
from db.sessions import turns
from db.sessions.budgets import counting
from tests.conftest import Configure
from tests.ledger import begun, commit, turn
from tests.running import AtWork, P
from tests.waiting import wait_until
from worker.cli.pages.health import health_page
from worker.cli.pages.layout import Facts
from worker.failures.errors import BudgetSpent
from worker.job import budgets
from worker.reports.health import health
from worker.reports.jobs import detailed

# Of each budget: whose next turn is refused once Ann's job in `a` has had its two turns, for 3 USD.
# The projects `a` and `c` are one account's.
REFUSED: dict[str, set[str]] = {
    "JOB": {"same job"},
    "PROJECT": {"same job", "same project"},
    "USER": {"same job", "same project", "same user"},
    "ACCOUNT": {"same job", "same project", "another user"},
    "DAY": {"same job", "same project", "same user", "another user"},
}


@pytest.fixture
def refused(conn: Connection, configure: Configure) -> Callable[..., dict[str, str]]:
    """`refused(BATON_BUDGET_…="3")`: whose next turn is, with the sentence."""
    paid = begun(conn, project="a", user_id="ann")
    commit(conn, paid, raw_cost_usd=1.0, final=False)
    failed = turn(conn, paid, "more")
    turns.fail(conn, paid, minted=failed, error_class="crashed", raw_cost_usd=2.0)
    old = turn(conn, paid, "old")
    turns.fail(conn, paid, minted=old, error_class="crashed", raw_cost_usd=100.0)
    conn.execute(
        "update turns set started_at = now() - interval '1 day', job_id = gen_random_uuid()"
        " where minted_session_id = %s",
        (old,),
    )
    conn.execute("update jobs set state = 'done', finished_at = now(), lease_until = null")
    conn.execute("insert into account_projects values ('a', 'acme'), ('c', 'acme'), ('d', 'x')")
    asked = {
        "same job": paid,
        "same project": begun(conn, "update", project="a", user_id="ann"),
        "same user": begun(conn, project="b", user_id="ann"),
        "another user": begun(conn, project="c", user_id="bob"),
    }

    def look(**env: str) -> dict[str, str]:
        configure(**env)
        found = dict[str, str]()
        for who, job in asked.items():
            try:
                budgets.for_a_turn(conn, job)
            except BudgetSpent as exc:
                found[who] = str(exc)
        configure(**dict.fromkeys(env))
        return found

    return look


@pytest.mark.parametrize("scope", REFUSED)
def test_a_budget_refuses_the_next_turn_of_whom_it_is_for(
    refused: Callable[..., dict[str, str]], scope: str
):
    for unit, spent, more in (("USD", "3", "3.01"), ("TURNS", "2", "3")):
        name = f"BATON_BUDGET_{scope}_{unit}"
        told = refused(**{name: spent})
        assert set(told) == REFUSED[scope], unit
        assert all(name in sentence for sentence in told.values())
        assert refused(**{name: more}) == {}, unit


def test_a_turn_may_spend_what_is_left_of_the_least_budget(
    conn: Connection, configure: Configure
):
    job = begun(conn, project="a", user_id="ann", budget=5)
    assert budgets.for_a_turn(conn, job) == 5
    running = turn(conn, job, budget_usd=5)
    conn.execute(
        "update turns set spent_usd = 1.5 where minted_session_id = %s", (running,)
    )  # as the proxy counts
    configure(BATON_BUDGET_USER_USD="4", BATON_BUDGET_DAY_USD="100")
    assert budgets.for_a_turn(conn, job) == 2.5
    configure(BATON_BUDGET_USER_USD=None, BATON_BUDGET_DAY_USD="100")
    assert budgets.for_a_turn(conn, job) == 5


def test_turns_that_begin_at_once_are_counted_one_after_the_other(
    conn: Connection, dsn: str, configure: Configure
):
    configure(BATON_BUDGET_DAY_TURNS="1")
    first, second = begun(conn, project="a"), begun(conn, project="b")

    def begin_the_second() -> None:
        with psycopg.connect(dsn, autocommit=True) as other, counting(other):
            budgets.for_a_turn(other, second)

    with ThreadPoolExecutor() as threads:
        with counting(conn):
            budgets.for_a_turn(conn, first)
            begins = threads.submit(begin_the_second)
            wait_until(lambda: _waits(conn) or begins.done(), description="the second")
            turn(conn, first)
        with pytest.raises(BudgetSpent):
            begins.result()


def _waits(conn: Connection) -> bool:
    """Whether somebody here waits for a number's lock; pg_stat_activity would say in a transaction
    what it said first."""
    waiting = """
        select from pg_locks where locktype = 'advisory' and not granted
           and database = (select oid from pg_database where datname = current_database())"""
    return conn.execute(waiting).rowcount > 0


@pytest.mark.agent("direct")
def test_what_goes_over_a_budget_is_booked_and_the_next_job_is_refused_in_a_sentence(
    at_work: AtWork,
):
    at_work.configure(BATON_BUDGET_USER_USD="0.01")
    first = at_work.build("write a.txt: " + "long " * 2000)
    assert first.state == "done"
    (step,) = detailed(at_work.conn, first)["steps"]
    assert float(step["budget_usd"]) == 0.01
    assert step["cost_usd"] > 0.01
    asked = len(at_work.model.requests)

    second = at_work.build("say ok")

    assert (second.state, second.error_class, second.attempts) == ("failed", "budget_spent", 1)
    assert second.error
    assert second.error.startswith("The budget of this user today is used up: $")
    assert "BATON_BUDGET_USER_USD" in second.error
    assert len(at_work.model.requests) == asked
    assert jobs.turns(at_work.conn, second.id) == []
    assert at_work.value("select count(*) from turns where project_id = %s", P) == 1

    at_work.configure(BATON_BUDGET_USER_USD=None, BATON_BUDGET_DAY_TURNS="7")
    document = health(at_work.conn)
    assert document["today"]["turns"] == 1
    (facts, *_) = health_page(document, {})
    assert isinstance(facts, Facts)
    assert dict(facts.rows)["today"] == f"${step['cost_usd']:.4f}, 1 turns of 7"
