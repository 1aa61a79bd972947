"""A finished job once more: a request like any other, and never over what was done."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, sql

from db.jobs import jobs
from tests.commandline import Baton, bare, baton
from tests.conftest import Configure
from tests.ledger import (
    ask,
    at_once,
    begun,
    blocked,
    built,
    commit,
    finish,
    job_row,
    next_job,
    one,
)
from tests.running import AtWork
from tests.waiting import wait_until
from worker.client import (
    BadInput,
    BadVersion,
    BeingDeleted,
    KeyConflict,
    PromptTooLong,
    UnknownProject,
    cancel,
    job,
    retry,
)

pytestmark = pytest.mark.agent("direct")

__all__ = ["bare", "baton"]


def again(conn: Connection, old: object) -> jobs.Job:
    found = retry(conn, getattr(old, "id", old))  # pyright: ignore[reportArgumentType]
    assert found
    return found


@pytest.mark.parametrize("version", [None, "v1"])
def test_a_build_that_is_done_is_built_again_as_another_version(
    at_work: AtWork, baton: Baton, version: str | None
):
    first = at_work.build("write a.txt: one", version=version)
    assert first.version_id == version or str(first.id)
    told = baton("retry", str(first.id), "--json").document
    assert told["version_id"] is None
    assert at_work.run(UUID(told["id"])).state == "done"
    trees = at_work.rows("select version_id, tree from project_versions order by id")
    assert len(trees) == 2
    assert trees[0][0] == first.version_id
    kept = at_work.rows("select ai_session_id from project_versions order by id")
    assert kept[0] != kept[1]


def test_a_build_that_failed_keeps_the_version_that_was_asked_for(conn: Connection):
    failed = begun(conn, version="v1")
    finish(conn, failed, "failed")
    assert again(conn, failed).version_id == "v1"


def test_what_is_about_a_version_stays_about_it(conn: Connection):
    build = begun(conn, version="v1")
    following = next_job()
    commit(conn, build, version_id="v1", new_version=True, following=following)
    row = "state = 'done', finished_at = now()"
    conn.execute(
        sql.SQL("update jobs set {} where id = %s").format(sql.SQL(row)), (following.id,)
    )
    assert again(conn, following.id).version_id == "v1"


def test_a_project_that_is_gone_or_anothers_by_now_is_not_worked_on(conn: Connection):
    failed = begun(conn)
    finish(conn, failed, "failed")
    conn.execute("update projects set user_id = 'another'")
    with pytest.raises(UnknownProject, match="Project p is unknown"):
        retry(conn, failed.id)
    conn.execute("delete from projects")
    with pytest.raises(UnknownProject, match="Project p is unknown"):
        retry(conn, failed.id)
    assert one(conn, "select count(*) from jobs") == 1


def test_a_retry_is_held_to_the_rules_of_today(conn: Connection):
    failed = begun(conn, version="v1", prompt="x" * 100)
    finish(conn, failed, "failed")
    conn.execute("insert into baton_settings values ('prompt_limit', '99')")
    with pytest.raises(PromptTooLong):
        retry(conn, failed.id)
    conn.execute("delete from baton_settings")
    conn.execute("create unique index on project_versions (version_id)")
    conn.execute("insert into project_versions (version_id, project_id) values ('v1', 'q')")
    with pytest.raises(BadVersion, match="v1 is not free"):
        retry(conn, failed.id)
    conn.execute(
        """insert into deletions (id, what, host, digest, todo) values
           (gen_random_uuid(), 'project', 'h', 'd', '{"projects": {"p": null}}')"""
    )
    with pytest.raises(BeingDeleted):
        retry(conn, failed.id)


def test_under_a_key_a_retry_is_one_job(conn: Connection):
    failed = begun(conn)
    finish(conn, failed, "failed")
    first = retry(conn, failed.id, key="k")
    assert first
    assert retry(conn, failed.id, key="k") == first
    assert cancel(conn, first.id)
    again = retry(conn, failed.id, key="k")
    assert again
    assert (again.id, again.state) == (first.id, "cancelled")
    assert retry(conn, failed.id, key="k2") != first
    with pytest.raises(KeyConflict):
        retry(conn, failed.id, key="k", fresh=True)
    with pytest.raises(KeyConflict):
        retry(conn, first.id, key="k")
    with pytest.raises(psycopg.Error, match="used for another request"):
        ask(conn, key="k")
    for wrong in ("", "k" * 201):
        with pytest.raises(BadInput, match="1 to 200 characters"):
            retry(conn, failed.id, key=wrong)
    assert one(conn, "select count(*) from jobs") == 3


def test_a_retry_that_eight_send_at_once_is_one_job(conn: Connection, dsn: str):
    failed = begun(conn)
    finish(conn, failed, "failed")
    found = at_once(dsn, lambda own: retry(own, failed.id, key="k"))
    assert {getattr(one, "retry_of", one) for one in found} == {failed.id}
    assert one(conn, "select count(*) from jobs") == 2


def test_a_retrys_key_holds_while_its_first_asker_is_undecided(conn: Connection, dsn: str):
    failed = begun(conn)
    finish(conn, failed, "failed")
    with psycopg.connect(dsn) as first, ThreadPoolExecutor() as threads:
        lost = retry(first, failed.id, key="k")
        second = threads.submit(retry, conn, failed.id, key="k")
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the second asker waits")
        first.rollback()
        made = second.result(10)
    assert lost
    assert made
    assert made.id != lost.id


def test_a_foreign_job_is_as_one_that_is_not_there(conn: Connection):
    failed = begun(conn)
    finish(conn, failed, "failed")
    for user, found in (("u", True), ("eve", False), (None, True)):
        assert (job(conn, failed.id, user=user) is not None) is found
        assert (retry(conn, failed.id, user=user) is not None) is found
    assert one(conn, "select count(*) from jobs") == 3
    waits = ask(conn, project="q")
    assert cancel(conn, waits, user="eve") is None
    assert job_row(conn, waits) == "queued"
    assert cancel(conn, waits, user="u")


def test_a_retry_by_the_command_line_says_why_not(
    conn: Connection, baton: Baton, configure: Configure
):
    done = built(conn)
    conn.execute("update projects set user_id = 'another'")
    told = baton("retry", str(done.id), "--json")
    assert told.document["error"] == {
        "code": "unknown_project",
        "field": "project",
        "message": "Project p is unknown: begin it with a build or a chat-plan.",
    }
    with pytest.raises(psycopg.Error, match="is unknown"):
        jobs.again(conn, done.id)
