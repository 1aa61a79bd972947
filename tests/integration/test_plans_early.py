"""A plan is made once a connection, perhaps when the ledger is empty: it serves a large one as well.

Of an empty table the planner expects one row by whatever index. What it then joins, instead of looking it
up, costs each job more the more work was done before it, until the table is counted.
"""

from collections.abc import Iterator
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection

from db.core.connections import Own
from db.core.pool import PLAN_ONCE
from db.jobs import attempts
from db.projects import projects
from db.transcripts import transcripts, usual
from db.transcripts.usual import Writer
from tests.databases import database
from tests.explained import explained, rows_of
from tests.ledger import advance, ask, claim, next_job, published, turn

MANY = 2000
FEW = 1000  # rows that a step may read or pass over: the catalogue has some hundreds of constraints
# What a fleet leaves, as far as a chain of another project could come across it.
GROWN: LiteralString = """
    insert into projects (project_id, user_id, workspace)
    select 'other-' || n, 'bob', '/srv/other-' || n from generate_series(1, 2000) n;
    insert into jobs (id, chain_id, project_id, user_id, kind, publish_after, callback_url)
    select i, i, 'other-' || n, 'bob', 'build', now() + interval '1 hour', 'https://hooks.example/'
      from (select n, gen_random_uuid() as i from generate_series(1, 2000) n) x;
    insert into turns (job_id, attempt, project_id, step, minted_session_id, outcome)
    select id, gen_random_uuid(), project_id, 'build', id::text, 'committed' from jobs
     where user_id = 'bob';
    insert into session_resume_attempts (job_id, attempt, project_id, step, outcome)
    select id, gen_random_uuid(), project_id, 'build', 'trying' from jobs where user_id = 'bob';
    insert into branches (project_id, lane, user_id, from_session, head)
    select project_id, 'line', 'bob', 'a', 'a' from jobs where user_id = 'bob';
    insert into project_ai_session_metrics (session_id, project_id, user_id)
    select id::text, project_id, 'bob' from jobs where user_id = 'bob';
    insert into project_versions (project_id, version_id, ai_session_id)
    select project_id, 'v1', id::text from jobs where user_id = 'bob';
    insert into transcript_sessions (project_id, session_id, entries, bytes, last_batch, last_digest)
    select project_id, id::text, 1, 1, 1, '' from jobs where user_id = 'bob'"""


@pytest.fixture
def new_dsn(postgres: str, template: str) -> Iterator[str]:
    """A new ledger: its tables were never counted, and have no room of rows that are gone, as those
    of a database that served other tests."""
    with database(postgres, f"template {template} strategy file_copy") as url:
        yield url


@pytest.fixture
def pooled(new_dsn: str) -> Iterator[Own]:
    """A connection as a pool's."""
    with Own.connect(new_dsn, autocommit=True, prepare_threshold=0) as own:
        own.begin().execute(PLAN_ONCE, prepare=False)
        yield own


def test_a_plan_made_of_an_empty_ledger_reads_no_more_of_a_large_one(pooled: Own, new_dsn: str):
    plans = explained(pooled)
    _chain(pooled, "first")  # makes the plans
    with Own.connect(new_dsn, autocommit=True) as own:
        _grow(own)
    plans.clear()
    _chain(pooled, "second")
    _check_little_is_read(plans, at_least=20)


@pytest.mark.parametrize("settings", [None, PLAN_ONCE], ids=["its own", "a pool's"])
def test_a_producer_that_sends_keys_reads_no_more_of_a_large_ledger(
    pooled: Own, new_dsn: str, settings: LiteralString | None
):
    """By the fifth request at the latest Postgres keeps its plans."""
    with psycopg.connect(new_dsn, autocommit=True, prepare_threshold=0) as asker:
        plans = explained(asker)
        if settings:
            asker.execute(settings, prepare=False)
        for n in range(10):
            _ask_in_ways(asker, f"first-{n}")
        _grow(pooled)
        plans.clear()
        _ask_in_ways(asker, "second")
    _check_little_is_read(plans, at_least=5)


def _ask_in_ways(conn: Connection[Any], project: str) -> None:
    for busy in ("enqueue", "reject", "replace", "interrupt"):
        ask(conn, project=f"{project}-{busy}", key="a key", busy=busy)
        ask(conn, project=f"{project}-{busy}", key="a key", busy=busy)
    ask(conn, project=project, id=uuid4(), version="v1")
    ask(conn, "update", project=project)


def _grow(conn: Connection[Any]) -> None:
    for statement in GROWN.split(";"):
        conn.execute(statement.encode(), prepare=False)


def _check_little_is_read(plans: list[str], at_least: int) -> None:
    assert len(plans) >= at_least, "all is explained"
    wrong = [found for plan in plans for found in _much_read(plan)]
    assert not wrong, "\n".join(wrong)


def _much_read(plan: str) -> Iterator[str]:
    """The steps of the plan that came across more than a few rows, each with the one above it."""
    lines = plan.splitlines()
    for n, line in enumerate(lines):
        if any(rows > FEW for rows in rows_of(line)):
            yield "\n".join(lines[n - 1 : n + 3])


def _chain(conn: Own, project: str) -> None:
    """What a worker and the relay ask of Postgres for a chain of two jobs."""
    ask(conn, project=project, callback_url=None)
    asked = ask(conn, project=project, callback_url=None, busy="interrupt")
    while asked not in (sent := published(conn)):
        assert sent
    following = next_job()
    for follows in (following, None):
        job = claim(conn, asked)
        assert job
        assert projects.looked_at(conn, project, project, ["/srv"]) == (False, False)
        minted = turn(conn, job)
        writer = Writer(project, job.id, job.attempt, job.head, ())
        said = [{"type": "user", "uuid": str(uuid4()), "message": "go"}]
        assert usual.append(conn, writer, minted, said, subpath="", last=None, fold=None)
        assert transcripts.load(conn, project, minted)
        assert advance(
            conn,
            job,
            minted,
            following=follows,
            version_id="v1",
            new_version=follows is not None,
        )
        asked = following.id


def test_a_commit_is_planned_once_whatever_its_turn_came_to(pooled: Own):
    """By the types of its parameters: a small number has another than a large one, and nothing
    another than something."""
    cases: list[dict[str, Any]] = [
        {},
        {"following": next_job()},
        {"files": ["a"], "tree": "c0ffee"},
    ]
    for number, case in enumerate(cases):
        _commit(pooled, f"p{number}", **case)
    for tokens in (0, 200, 70_000, 3_000_000_000):
        counts = dict.fromkeys(("input_tokens", "cache_read_tokens", "duration_ms"), tokens)
        _commit(pooled, f"of-{tokens}", **counts)
    known = pooled.execute(
        "select from pg_prepared_statements where statement like '%%the_turn as (%%'",
        prepare=False,
    )
    assert known.rowcount == 1


def _commit(conn: Own, project: str, **case: Any) -> None:
    job = claim(conn, ask(conn, project=project))
    assert job
    minted = turn(conn, job)
    known: dict[str, Any] = {"raw_cost_usd": 0.1, "duration_ms": 1}
    assert advance(conn, job, minted, **(known | case))


def test_the_prompt_of_whom_a_request_replaced_is_not_looked_for_among_all_that_ended(
    pooled: Own,
):
    job = claim(pooled, ask(pooled, project="p"))
    assert job
    _grow(pooled)
    pooled.execute("update jobs set state = 'done', finished_at = now() where user_id = 'bob'")
    pooled.execute("analyze jobs")
    plans = explained(pooled)
    assert attempts.replaced_prompt(pooled, job) is None
    _check_little_is_read(plans, at_least=1)
