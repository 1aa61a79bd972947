"""No table that grows is read from end to end: Postgres explains all that pages, reports, clean-up,
deletions, producers, workers and relay ask of a ledger of some thousand rows."""

import re
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import Connection

from dev.bench.fill import Amount, fill
from dev.bench.scale_work import Work, works
from tests.databases import database

AMOUNT = Amount(3000, archived=1, done=4, queued=3)
# Tables that grow with the work that was done, or with those who ask for it.
LARGE = (
    *("jobs", "turns", "events", "projects", "project_versions", "session_transitions"),
    *("project_ai_session_metrics", "project_chat_log_minimal", "session_resume_attempts"),
    *("transcript_sessions", "transcript_batches", "transcript_entries"),
)
READ_WHOLE = re.compile(rf"Seq Scan on ({'|'.join(LARGE)}|session_transitions_archive_\w+)\b")
# Of so few rows a join reads a table whole, rightly: what counts is whether it can do without.
ASKED = "Query Text: explain"  # the planner was only asked for its guess
EXPLAINED = """
    set enable_hashjoin = off; set enable_mergejoin = off;
    load 'auto_explain';
    set auto_explain.log_level = 'notice';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_nested_statements = on"""


@pytest.fixture(scope="module")
def ledger(postgres: str, template: str) -> Iterator[str]:
    """The URL of a ledger with a month's work; what a test does in it is taken back."""
    with database(postgres, f"template {template} strategy file_copy") as url:
        with psycopg.connect(url, autocommit=True) as conn:
            fill(conn, AMOUNT)
        yield url


@pytest.fixture
def explained(ledger: str) -> Iterator[tuple[Connection, list[str]]]:
    """A connection, and the plan of each statement that it executes, also within functions."""
    plans = list[str]()
    with psycopg.connect(ledger, autocommit=True, prepare_threshold=0) as conn:
        conn.execute(EXPLAINED, prepare=False)
        conn.add_notice_handler(lambda told: plans.append(told.message_primary or ""))
        yield conn, plans


@pytest.mark.parametrize("work", works(AMOUNT), ids=lambda work: work.name)
def test_nothing_reads_a_table_that_grows_from_end_to_end(
    explained: tuple[Connection, list[str]], work: Work
):
    conn, plans = explained
    for plan in ("auto", "force_generic_plan"):  # as producers plan, and as pools do
        with work.prepared(conn, 1) as do:
            conn.execute(f"set local plan_cache_mode = {plan}".encode())
            plans.clear()
            do()
        assert plans, "everything is explained"
        wrong = [told for told in plans if READ_WHOLE.search(told) and ASKED not in told]
        assert not wrong, wrong[0]
