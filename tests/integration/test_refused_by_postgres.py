"""A row that a table of the product's does not take is told as what it is, once.

What can be known before a turn is paid is refused then (test_product_rules.py): these are rules
that go by what the turn says.
"""

import random
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import LiteralString

import pytest
from structlog.testing import capture_logs

from db.core import pool
from db.jobs import jobs
from dev.agents.scripted import scripted
from tests.databases import by_default
from tests.invariants import violations
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.client import Build
from worker.failures import retry

pytestmark = pytest.mark.agent("direct")

SECRET = "a word that only the prompt has"
SHORT = """alter table project_chat_log_minimal
             add constraint short_messages check (length(content) < 5)"""
NARROW = "alter table project_chat_log_minimal alter column content type varchar(5)"


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        (SHORT, 'constraint "short_messages" of table "project_chat_log_minimal"'),
        (NARROW, "value too long for type character varying(5)"),
    ],
)
def test_a_commit_that_a_table_refuses_is_not_paid_for_again(
    at_work: AtWork, rule: str, named: str
):
    other = Build(project="other", user=U, prompt="x", version="v1")
    assert at_work.one(other, scripted(says="y")).state == "done"
    at_work.conn.execute(rule.encode())
    job = at_work.build(SECRET, version="v1", agent=scripted())
    assert (job.state, job.attempts, job.error_class) == ("failed", 1, "refused_by_postgres")
    assert named in (job.error or "")
    assert SECRET not in (job.error or "")
    (turn,) = at_work.turns(job.id)
    assert (turn["outcome"], turn["error_class"]) == ("failed", "refused_by_postgres")
    assert turn["cost_usd"] == 0.25
    assert at_work.head() is None
    assert violations(at_work.conn) == []


def test_a_claim_that_a_table_refuses_fails_the_job(at_work: AtWork):
    at_work.conn.execute(
        "alter table projects add constraint elsewhere check (workspace not like '%shop')"
    )
    asked = at_work.ask(Build(project=P, user=U, prompt="x"))
    ran = at_work.run(asked, scripted())
    job = at_work.job(asked)
    assert (ran.state, job.state, job.error_class) == (
        "failed",
        "failed",
        "refused_by_postgres",
    )
    assert 'constraint "elsewhere" of table "projects"' in (job.error or "")
    told = [kind for (kind,) in at_work.rows("select type from events")]
    assert told == ["chat.said", "job.failed"]
    assert at_work.run(asked, scripted()).state == "failed", "it is said again, and not done"
    assert violations(at_work.conn) == []


# What a trigger of the product's does with an answer that says this word; a rehearsal's does not.
WORD = "Open sesame"
WHEN: LiteralString = """
    create trigger slow before insert on project_chat_log_minimal for each row
        when (new.content like '%sesame%') execute function slow()"""
FOREVER: LiteralString = (
    """create function slow() returns trigger language plpgsql as
           $$ begin perform pg_sleep(600); return new; end $$;"""
    + WHEN
)
FULL: LiteralString = (
    """create function slow() returns trigger language plpgsql as
           $$ begin raise 'no space left' using errcode = 'disk_full'; end $$;"""
    + WHEN
)


def test_a_row_that_is_too_large_for_an_index_is_told_as_that_and_once(at_work: AtWork):
    """To psycopg it is an operational error, as an outage is."""
    at_work.conn.execute("create index long_ones on project_chat_log_minimal (content)")
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=7_000))
    job = at_work.build("x", agent=scripted(says=long))
    assert (job.state, job.attempts, job.error_class) == ("failed", 1, "refused_by_postgres")
    assert 'exceeds btree version 4 maximum 2704 for index "long_ones"' in (job.error or "")
    (turn,) = at_work.turns(job.id)
    assert (turn["outcome"], turn["error_class"]) == ("failed", "refused_by_postgres")
    assert violations(at_work.conn) == []


@pytest.mark.agent("cli")
def test_a_commit_that_takes_longer_than_a_statement_may_ends_its_job_with_that_reason(
    at_work: AtWork, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    """The turn is paid once: each attempt tries to commit it, and no longer than for a while."""
    monkeypatch.setattr(retry, "ENOUGH", 1.0)
    at_work.configure(BATON_ATTEMPTS="2")
    with told_to_hurry(at_work, dsn):
        job = at_work.build(f"say {WORD}")
        assert (job.state, job.attempts, job.error_class) == ("queued", 1, "statement_stopped")
        job = at_work.again(job.id)
    assert (job.state, job.attempts, job.error_class) == ("failed", 2, "statement_stopped")
    assert "canceling statement due to statement timeout" in (job.error or "")
    assert [one["outcome"] for one in at_work.turns(job.id)] == ["failed"]
    assert len(at_work.model.requests) == 1
    assert violations(at_work.conn) == []


@pytest.mark.agent("cli")
def test_a_turn_whose_commit_was_stopped_is_committed_when_nothing_stops_it(
    at_work: AtWork, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(retry, "ENOUGH", 1.0)
    with told_to_hurry(at_work, dsn):
        job = at_work.build(f"write a.txt: 1\nsay {WORD}")
    asked = len(at_work.model.requests)
    job = at_work.again(job.id)
    assert (job.state, job.attempts) == ("done", 2)
    assert len(at_work.model.requests) == asked, "the turn is not paid for again"
    assert (at_work.place / "a.txt").read_text() == "1"
    assert violations(at_work.conn) == []


@contextmanager
def told_to_hurry(at_work: AtWork, dsn: str) -> Generator[None]:
    """A role's limit of time, and a trigger that takes longer."""
    at_work.conn.execute(FOREVER)
    by_default(dsn, "statement_timeout", "1s")
    pool.close()
    yield
    by_default(dsn, "statement_timeout", "0")
    pool.close()
    at_work.conn.execute("drop trigger slow on project_chat_log_minimal")


@pytest.mark.parametrize("rule", [FULL, FOREVER])
def test_a_cancel_ends_a_job_whose_commit_is_not_taken(
    at_work: AtWork, dsn: str, rule: LiteralString
):
    at_work.conn.execute(rule, prepare=False)
    by_default(dsn, "statement_timeout", "1s")
    pool.close()
    asked = at_work.ask(Build(project=P, user=U, prompt=f"say {WORD}"))
    with capture_logs() as logged, ThreadPoolExecutor(1) as threads:
        ran = threads.submit(at_work.run, asked)
        wait_until(
            lambda: [line for line in logged if line["event"] == "commit.unknown"],
            description="the commit to be tried",
        )
        jobs.cancel(at_work.conn, asked)
        assert ran.result(30).state == "cancelled"
    assert at_work.job(asked).state == "cancelled"
    assert violations(at_work.conn) == []
