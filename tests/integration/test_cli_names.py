"""Ids by their first digits, wherever an id is given; and as short as they can be shown."""

from uuid import UUID, uuid4

import pytest
from psycopg import Connection

from db.core import names
from db.jobs import jobs, messages
from tests import ledger
from tests.commandline import Baton, failed
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.counting import reading

A, B = "1a2b3c4d-0000-4000-8000-000000000001", "1a2b3c4d-0000-4000-8000-000000000002"


def asked(conn: Connection, job: str, **more: str) -> None:
    assert ledger.ask(conn, id=UUID(job), **more) == UUID(job)


def test_a_job_is_named_by_its_first_digits_in_every_command(baton: Baton, conn: Connection):
    job = failed(conn, "It broke.")
    first = str(job)[:8]
    assert baton("jobs", first, "--json").document["id"] == str(job)
    assert baton("jobs", first.upper(), "--json").document["id"] == str(job)
    assert baton("jobs", str(job)[:20], "--json").document["id"] == str(job)
    new = baton("retry", first, "--json").document
    assert new["retry_of"] == str(job)
    assert baton("cancel", new["id"][:8], "--json").document["id"] == new["id"]
    refused = baton("answer", first, "retry")
    assert (refused.code, f"Job {job} is failed" in refused.err) == (1, True)
    listed = baton("jobs", "--after", new["id"][:8], "--json").document
    assert [one["id"] for one in listed] == [str(job)]


@pytest.mark.parametrize("task", ["order 17", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"])
def test_a_task_of_any_id_whose_message_was_refused_is_told(
    baton: Baton, conn: Connection, task: str
):
    messages.refuse(conn, task, "tasks.build", "bad_input", "The prompt is empty: say more.")
    ran = baton("jobs", task)
    assert (ran.code, ran.out) == (1, "")
    assert "was refused" in ran.err
    assert "The prompt is empty: say more." in ran.err


@pytest.mark.parametrize("task", ["order 17", "1a2b3c", "déjà.1"])
def test_the_job_of_a_task_of_any_id_is_found_by_it(baton: Baton, conn: Connection, task: str):
    job = jobs.id_of_task(task)
    asked(conn, str(job))
    assert baton("jobs", task, "--json").document["id"] == str(job)


@pytest.mark.parametrize("command", [("jobs",), ("cancel",), ("retry",)])
def test_what_may_be_several_jobs_is_wrong_usage_that_names_them(
    baton: Baton, conn: Connection, command: tuple[str, ...]
):
    asked(conn, A)
    asked(conn, B, project="q")
    ran = baton(*command, A[:8])
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert f"{A}, {B}. Give more of it" in ran.err
    assert baton("jobs", A[:-1]).code == 2
    assert baton("jobs", A, "--json").document["id"] == A


@pytest.mark.parametrize(
    "command", [("jobs",), ("cancel",), ("retry",), ("session",)], ids=lambda each: each[0]
)
def test_digits_that_begin_no_id_are_unknown(baton: Baton, command: tuple[str, ...]):
    ran = baton(*command, "0123abcd")
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)
    assert "There is no" in ran.err


def test_too_few_digits_are_wrong_usage(bare: Baton):
    ran = bare("jobs", "12345")
    assert (ran.code, "at least 6 digits" in ran.err) == (2, True)


def test_a_session_is_named_by_its_first_digits(baton: Baton, conn: Connection):
    head = ledger.built(conn).head
    assert head
    assert baton("session", head[:8], "--json").document["registry"]["session_id"] == head
    refused = baton("project", "p", "--rewind", head[:8])
    assert f"Session {head} is" in refused.err or "cannot be loaded" in refused.err
    job = baton(
        "enqueue", "chat-plan", "--project", "p", "--user", "u", "--prompt", "x",
        "--branch-from", head[:8], "--json",
    ).document  # fmt: skip
    assert job["lane"] == f"branch-{job['id']}"
    assert baton("branches", "p", "--drop", job["id"][:8]).code == 1, "it is open yet"
    assert baton("cancel", job["id"][:8]).code == 0
    dropped = baton("branches", "p", "--drop", f"branch-{job['id'][:8]}")
    assert (dropped.code, job["lane"] in dropped.out) == (0, True)


def test_a_session_of_another_project_is_not_meant(baton: Baton, conn: Connection):
    ledger.built(conn)
    other = ledger.built(conn, project="q").head
    assert other
    ran = baton("project", "p", "--rewind", other[:8])
    assert (ran.code, "There is no session" in ran.err) == (1, True)


def test_a_version_is_named_by_its_first_digits(baton: Baton, conn: Connection):
    version = str(uuid4())
    ledger.built(conn, version=version)
    ran = baton("diff", "p", version[:8])
    assert f"No files were kept of version {version}" in ran.err


def test_ids_are_as_short_as_they_can_be(conn: Connection):
    asked(conn, A)
    assert names.shortest_of_jobs(conn, [UUID(A)]) == {UUID(A): A[:8]}
    asked(conn, B, project="q")
    assert names.shortest_of_jobs(conn, [UUID(A), UUID(B)]) == {UUID(A): A, UUID(B): B}
    other = "1a2b3c4d-0001-4000-8000-000000000001"
    asked(conn, other, project="r")
    assert names.shortest_of_jobs(conn, [UUID(other)]) == {UUID(other): other[:13]}


def test_looking_for_a_beginning_reads_a_few_entries_of_an_index(conn: Connection):
    conn.execute(
        """
        insert into jobs (id, chain_id, project_id, user_id, kind)
        select id, id, 'p', 'u', 'build'
          from (select gen_random_uuid() as id from generate_series(1, 5000)) made;
        """
    )
    conn.execute(
        """
        insert into project_ai_session_metrics (session_id, project_id)
        select gen_random_uuid()::text, 'p' from generate_series(1, 5000)
        """
    )
    conn.execute("vacuum analyze jobs, project_ai_session_metrics")
    some = ledger.one(conn, "select id from jobs limit 1")
    session = ledger.one(conn, "select session_id from project_ai_session_metrics limit 1")
    with reading(conn) as read:
        assert names.jobs(conn, str(some)[:8]) == [some]
        assert names.sessions(conn, session[:8]) == [session]
        assert len(names.shortest_of_jobs(conn, [some])[some]) == 8
        assert len(names.shortest_of_sessions(conn, [session])[session]) == 8
    assert read.rows < 50, "of 10000 rows"
