"""Over a flood of one lane that Postgres has counted, no statement of the order reads the lane to its end.

A plan is made for the ledger as it was last counted (`analyze`, which autovacuum does within a
minute). Where most rows are alike the planner expects to meet a fitting one at once, by whatever
index; where none fits it then reads them all, for each job that is looked at.
"""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection

from db.jobs import attempts, endings, jobs, listing, outbox
from db.jobs.endings import End
from dev.bench.scale_work import LEASE, RUNNER, SILENT, SOON
from tests.databases import database
from tests.explained import explained
from tests.slots import flood
from worker.client import Build, enqueue
from worker.reports.jobs import listed

MANY = 5_000
FEW = 700  # rows that a statement may pass over: a page, and some
PASSED_OVER = re.compile(r"Rows Removed by Filter: (\d+)")
Act = Callable[[Connection], object]


AHEAD = """
    update jobs set scheduled = true, ready = false, run_at = now() + pos * interval '1 hour',
                    publish_after = now() + pos * interval '1 hour'
     where user_id = 'ann'"""


@pytest.fixture(scope="module", params=["due", "ahead"])
def flooded(postgres: str, template: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a ledger in which one user fills a lane, half of it looked at, and ten others ask.
    Or all that she asked for has a date ahead."""
    with database(postgres, f"template {template} strategy file_copy") as url:
        with psycopg.connect(url, autocommit=True) as conn:
            flood(conn, MANY, 1)
            for n in range(10):
                enqueue(conn, Build(project=f"of-{n}", user=f"user-{n}", prompt="go"))
            while outbox.look(conn):
                pass
            flood(conn, MANY, 1)
            if request.param == "ahead":
                conn.execute(AHEAD)
            conn.execute("vacuum analyze")
        yield url


def claim_next(conn: Connection) -> Any:
    (found, *_) = outbox.publish(conn, room=1, user_slots=0, pause=SOON, longest=SILENT)
    claimed = attempts.claim(
        conn, found.id, attempt=uuid4(), runner=RUNNER, lease=LEASE, limit=3
    )
    assert claimed
    return claimed


def end_one(conn: Connection) -> None:
    endings.finish(conn, claim_next(conn), End(state="failed"), [], SOON)
    outbox.look(conn)


def cancel_one(conn: Connection) -> None:
    jobs.cancel(conn, enqueue(conn, Build(project="of-3", user="user-3", prompt="go")).id)


def list_all(conn: Connection) -> None:
    listed(conn, listing.jobs(conn, listing.Wanted()))


ACTS: dict[str, Act] = {
    "look": outbox.look,
    "is anything owed": lambda conn: outbox.owes(conn, older_than=timedelta(seconds=2)),
    "publish": lambda conn: outbox.publish(
        conn, room=8, user_slots=1, pause=SOON, longest=SILENT
    ),
    "claim": claim_next,
    "end": end_one,
    "ask in the flooded lane": lambda conn: enqueue(
        conn, Build(project="flood0", user="ann", prompt="go")
    ),
    "ask elsewhere": lambda conn: enqueue(
        conn, Build(project="of-1", user="user-1", prompt="go")
    ),
    "interrupt elsewhere": lambda conn: enqueue(
        conn, Build(project="of-2", user="user-2", prompt="go", busy="interrupt")
    ),
    "cancel": cancel_one,
    "list": list_all,
}


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("act", ACTS)
def test_over_a_flood_that_postgres_has_counted_no_lane_is_read_to_its_end(
    flooded: str, act: str, plan: str
):
    with psycopg.connect(flooded, autocommit=True, prepare_threshold=0) as conn:
        conn.execute(f"set plan_cache_mode = {plan}".encode(), prepare=False)
        plans = explained(conn)
        with conn.transaction(force_rollback=True):
            ACTS[act](conn)
    assert plans, "everything is explained"
    wrong = [told for told in plans if any(int(n) > FEW for n in PASSED_OVER.findall(told))]
    assert not wrong, wrong[0]
