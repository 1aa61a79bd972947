"""The checker of the invariants sees what is wrong; a whole life of jobs is right."""

from typing import LiteralString

import pytest
from psycopg import Connection

from tests.invariants import violations
from tests.ledger import begun, built, claim, commit, finish, next_job

PLANTED: list[tuple[str, LiteralString]] = [
    ("2", "delete from events where type = 'job.done'"),
    ("2", "update events set type = 'job.failed' where type = 'job.done'"),
    ("3", "update projects set last_ai_session_id = 'another'"),
    ("3", "update projects set last_ai_session_id = null"),
    ("4", "update project_versions set ai_session_id = 'another'"),
    ("5", "update session_transitions set old_session_id = 'x' where source = 'metadata'"),
    ("5", "delete from session_transitions where id = 2"),
    ("6", "update turns set outcome = 'abandoned' where step = 'documentation'"),
    ("6", "update turns set observed_session_id = 'x' where step = 'documentation'"),
    ("6", "delete from project_ai_session_metrics where step = 'build'"),
    (
        "7",
        "drop index turns_step_once; update turns set step = 'documentation'"
        " where step = 'recommendations'",
    ),
    ("9", "update project_ai_session_metrics set cost_usd = 9 where step = 'build'"),
    ("9", "update project_ai_session_metrics set cost_usd = -1 where step = 'build'"),
    ("9", "update project_ai_session_metrics set raw_cost_usd = null where step = 'build'"),
    ("10", "update session_transitions set source = 'fallback' where source = 'metadata'"),
    ("10", "update jobs set args = args - 'prompt'"),
    ("10", "update session_resume_attempts set outcome = 'rejected'"),
    ("12", "delete from events where seq = 2"),
    ("12", "update projects set event_seq = event_seq + 1"),
    ("8", "update turns set outcome = 'running', observed_session_id = null"),
    ("10", "update session_resume_attempts set outcome = 'trying'"),
]


@pytest.fixture
def lived(conn: Connection) -> Connection:
    """A chain that ran to its end: a build, and the metadata that followed it."""
    following = next_job()
    built(conn, following=following, raw_cost_usd=0.5)
    metadata = claim(conn, following.id)
    assert metadata
    metadata = commit(
        conn,
        metadata,
        step="recommendations",
        version_id="v1",
        source="metadata",
        final=False,
        raw_cost_usd=0.75,
    )
    commit(
        conn,
        metadata,
        step="documentation",
        version_id="v1",
        source="metadata",
        raw_cost_usd=1.0,
    )
    return conn


def test_a_chain_that_ran_to_its_end_violates_nothing(lived: Connection):
    assert violations(lived, ended=True) == []


def test_a_planted_violation_is_found(lived: Connection, subtests: pytest.Subtests):
    for number, wrong in PLANTED:
        with subtests.test(wrong), lived.transaction(force_rollback=True):
            lived.execute(wrong)
            found = violations(lived, ended=True)
            assert number in {text.partition(":")[0] for text in found}


def test_work_that_is_left_is_a_violation_only_in_the_end(conn: Connection):
    begun(conn)
    assert violations(conn) == []
    assert any("is still running" in text for text in violations(conn, ended=True))


def test_an_end_that_was_told_twice_is_found(conn: Connection):
    job = begun(conn)
    finish(conn, job, "failed")
    assert violations(conn) == []
    conn.execute("update projects set event_seq = event_seq + 1")
    conn.execute(
        "insert into events (project_id, seq, job_id, type)"
        " select project_id, event_seq, %s, 'job.failed' from projects",
        (job.id,),
    )
    assert len(violations(conn)) == 1
