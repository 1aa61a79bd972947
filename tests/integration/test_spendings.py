"""What a day's budgets are looked up in: sums of the turns that have ended, and the newest turns."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from psycopg import Connection

from db.core import ledger_settings
from db.core.connections import Own
from db.core.pool import PLAN_ONCE
from db.operations import deletion, receipts, upkeep
from db.sessions import budgets
from db.sessions.budgets import LEAST, Payer
from tests.conftest import Configure
from tests.explained import explained, rows_of
from tests.ledger import begun, blocked, one
from tests.waiting import wait_until

DAY = ("project", "user", "account", "day")
TURNS = """
    insert into turns (job_id, attempt, project_id, step, minted_session_id, outcome, cost_usd)
    select %(job)s, gen_random_uuid(), %(project)s, 'build-' || n, gen_random_uuid(), %(outcome)s, 0.5
      from generate_series(1, %(many)s) n"""

ENDED = """
    update jobs set state = 'done', finished_at = now() - interval '2 hours', lease_until = null"""


@pytest.fixture(autouse=True)
def limited(conn: Connection, configure: Configure) -> None:
    configure(BATON_BUDGET_DAY_USD="100")
    ledger_settings.tell(conn)  # as a worker does


@pytest.fixture
def payers(conn: Connection) -> list[Payer]:
    """Two projects of ann's and one of bob's; the second of ann's and bob's are one account's."""
    of = {"a": "ann", "b": "ann", "c": "bob"}
    conn.execute("insert into account_projects values ('b', 'acme'), ('c', 'acme')")
    return [Payer(begun(conn, project=p, user_id=user).id, p, user) for p, user in of.items()]


def add(conn: Connection, payer: Payer, many: int, outcome: str = "failed") -> None:
    given = {"job": payer.job, "project": payer.project, "many": many, "outcome": outcome}
    conn.execute(TURNS, given)


def told(conn: Connection, payer: Payer, scopes: Iterable[str] = budgets.SCOPES):
    return {
        one.scope: (float(one.usd), one.turns) for one in budgets.spent(conn, scopes, payer)
    }


def counted(conn: Connection) -> int:
    return one(conn, "select count(*) from turns where counted_usd is not null")


def test_a_sum_is_the_same_before_and_after_its_turns_were_added_up(
    conn: Connection, payers: list[Payer]
):
    for payer, many in zip(payers, (3, 5, 7), strict=True):
        add(conn, payer, many)
    add(conn, payers[0], 1, "running")
    before = [told(conn, payer) for payer in payers]
    assert before[1] == {
        "job": (2.5, 5),
        "project": (2.5, 5),
        "user": (4.5, 9),
        "account": (6.0, 12),
        "day": (8.0, 16),
    }
    assert before[0]["account"] == (0, 0)
    budgets.count_all(conn)
    assert counted(conn) == 15, "all that have ended"
    assert [told(conn, payer) for payer in payers] == before


def test_what_is_booked_of_a_turn_after_it_was_added_up_counts(
    conn: Connection, payers: list[Payer]
):
    add(conn, payers[0], 2)
    budgets.count_all(conn)
    conn.execute("update turns set cost_usd = 3 where step = 'build-1'")
    conn.execute("update turns set spent_usd = 0.75 where step = 'build-2'")
    assert told(conn, payers[0], DAY)["user"] == (3.75, 2)
    budgets.count_all(conn)
    assert told(conn, payers[0], DAY)["user"] == (3.75, 2)
    assert one(conn, "select usd from spent_by_day where project_id = 'a'") == Decimal("3.75")


def test_turns_of_yesterday_are_none_of_today(conn: Connection, payers: list[Payer]):
    add(conn, payers[0], 2)
    budgets.count_all(conn)
    conn.execute("update spent_by_day set day = day - 1")
    conn.execute("update turns set started_at = started_at - interval '1 day'")
    assert told(conn, payers[0], DAY)["day"] == (0, 0)
    upkeep.clear_jobs(conn, timedelta(days=30))
    assert one(conn, "select count(*) from spent_by_day") == 3, (
        "of a day that may just have ended"
    )
    conn.execute("update spent_by_day set day = day - 1")
    upkeep.clear_jobs(conn, timedelta(days=30))
    assert one(conn, "select count(*) from spent_by_day") == 0


def test_many_who_add_up_at_once_count_each_turn_once(
    conn: Connection, dsn: str, payers: list[Payer]
):
    for payer in payers:
        add(conn, payer, 400)

    def count(_: int) -> None:
        with psycopg.connect(dsn, autocommit=True) as own:
            budgets.count_all(own)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(count, range(6)))
    assert counted(conn) == 1200
    assert told(conn, payers[0], DAY)["day"] == (600, 1200)
    assert one(conn, "select usd from spent_by_day where project_id || user_id = ''") == 600


def test_few_turns_are_left_for_later_and_without_a_days_budget_nothing_is_added_up(
    conn: Connection, payers: list[Payer], configure: Configure
):
    add(conn, payers[0], LEAST - 1)
    budgets.count(conn)
    assert counted(conn) == 0
    add(conn, payers[1], 1)
    configure(BATON_BUDGET_DAY_USD=None, BATON_BUDGET_JOB_USD="100")
    budgets.count(conn)
    budgets.count_all(conn)
    assert counted(conn) == 0
    configure(BATON_BUDGET_USER_TURNS="1000")
    budgets.count(conn)
    assert counted(conn) == LEAST


def test_a_deletion_gives_no_budget_back(conn: Connection, payers: list[Payer]):
    add(conn, payers[0], 2)
    conn.execute("update jobs set state = 'done', finished_at = now(), lease_until = null")
    receipt = receipts.begin(conn, "project", "a", host="h")
    deletion.take_project(conn, receipt.id, "a", turns_here=[])
    found = told(conn, payers[0], DAY)
    assert (found["project"], found["user"], found["day"]) == ((0, 0), (1, 2), (1, 2))


def test_a_clean_up_after_less_than_a_day_gives_no_budget_back(
    conn: Connection, payers: list[Payer]
):
    add(conn, payers[0], 2)
    conn.execute(ENDED)
    upkeep.clear_jobs(conn, timedelta(hours=1))
    assert one(conn, "select count(*) from turns") == 0
    assert told(conn, payers[0], DAY)["user"] == (1, 2)


@pytest.mark.parametrize("by", ["a project's deletion", "a user's", "a clean-up"])
def test_who_has_no_budgets_set_gives_none_back_by_deleting(
    conn: Connection, payers: list[Payer], configure: Configure, by: str
):
    """As an operator's shell, or a worker of another environment. One turn has cost more since it was added up."""
    add(conn, payers[0], 2)
    budgets.count_all(conn)
    conn.execute("update turns set spent_usd = 1.5 where step = 'build-1'")
    add(conn, payers[0], 1)
    conn.execute(ENDED)
    configure(BATON_BUDGET_DAY_USD=None)
    if by == "a clean-up":
        upkeep.clear_jobs(conn, timedelta(hours=1))
    elif by == "a user's":
        deletion.take_user(conn, receipts.begin(conn, "user", "ann", host="h").id, "ann")
    else:
        deletion.take_project(
            conn, receipts.begin(conn, "project", "a", host="h").id, "a", turns_here=[]
        )
    assert one(conn, "select count(*) from turns") == 0
    found = told(conn, payers[0], DAY)
    assert found["day"] == (2.5, 3)
    assert found["user"] == ((0, 0) if by == "a user's" else (2.5, 3))


def test_a_turn_that_ends_while_its_project_is_deleted_is_counted(
    conn: Connection, dsn: str, payers: list[Payer]
):
    """What the proxy books of it commits when all was added up, and the deletion waits for its row."""
    add(conn, payers[0], 2)
    conn.execute(ENDED)
    receipt = receipts.begin(conn, "project", "a", host="h")
    with ThreadPoolExecutor(1) as thread, psycopg.connect(dsn) as proxy:
        proxy.execute("update turns set spent_usd = 2 where step = 'build-1'")
        with psycopg.connect(dsn, autocommit=True) as own:
            gone = thread.submit(deletion.take_project, own, receipt.id, "a", turns_here=[])
            wait_until(lambda: blocked(conn), description="the deletion to wait for the turn")
            proxy.commit()
            gone.result()
    assert told(conn, payers[0], DAY)["user"] == (2.5, 2)


@pytest.fixture
def pooled(dsn: str) -> Iterator[Own]:
    with Own.connect(dsn, autocommit=True, prepare_threshold=0) as own:
        own.begin().execute(PLAN_ONCE, prepare=False)
        yield own


def test_a_look_reads_no_more_after_thousands_of_turns(
    conn: Connection, payers: list[Payer], pooled: Own
):
    plans = explained(pooled)
    budgets.spent(pooled, DAY, payers[1])  # makes the plan, of an empty ledger
    for _ in range(20):
        for payer in payers:
            add(conn, payer, LEAST)
            budgets.count(conn)
    assert counted(conn) == 20 * 3 * LEAST
    plans.clear()
    budgets.spent(pooled, DAY, payers[1])
    (plan,) = plans
    # An index has what was added up last until the next look at it.
    assert max(rows_of(plan)) <= 5 * LEAST, plan
