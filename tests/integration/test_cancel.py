"""Cancel and retry: what waits ends at once, what runs is told, what has ended stays."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import psycopg
from psycopg import Connection

from db.jobs import attempts, endings, jobs, listing, rescue
from db.jobs.endings import Wait
from db.jobs.listing import Wanted
from tests.invariants import violations
from tests.ledger import (
    advance,
    ask,
    begun,
    blocked,
    claim,
    contents,
    finish,
    job_row,
    next_job,
    published,
    turn,
    types,
)
from tests.waiting import wait_until


def test_a_waiting_job_is_cancelled_at_once_and_told_of_once(conn: Connection):
    queued, parked = ask(conn), ask(conn, project="q")
    conn.execute("update jobs set state = 'parked' where id = %s", (parked,))
    for each, project in ((queued, "p"), (parked, "q")):
        cancelled = jobs.cancel(conn, each)
        assert cancelled
        assert (cancelled.state, cancelled.error_class) == ("cancelled", "cancelled")
        before = contents(conn)
        assert jobs.cancel(conn, each) == cancelled
        assert contents(conn) == before
        assert types(conn, project) == ["chat.said", "job.cancelled"]
    assert claim(conn, queued) is None
    assert violations(conn) == []


def test_a_running_job_is_told_and_goes_on_until_its_worker_hears(conn: Connection):
    job = begun(conn)
    assert jobs.cancel(conn, job.id).state == "running"  # pyright: ignore[reportOptionalMemberAccess]
    assert attempts.wanted(conn, job.id, job.attempt) == "cancel"
    first = job_row(conn, job.id, "cancel_requested_at")
    jobs.cancel(conn, job.id)
    assert job_row(conn, job.id, "cancel_requested_at") == first
    assert endings.put_back(conn, job, Wait(), []) is None
    assert finish(conn, job, "cancelled")
    assert types(conn).count("job.cancelled") == 1


def test_a_job_that_has_ended_and_one_there_is_not_stay_as_they_are(conn: Connection):
    job = begun(conn)
    finish(conn, job, "failed")
    before = contents(conn)
    assert jobs.cancel(conn, job.id).state == "failed"  # pyright: ignore[reportOptionalMemberAccess]
    assert jobs.cancel(conn, uuid4()) is None
    assert contents(conn) == before


def test_the_build_id_cancels_the_chain_wherever_it_is(conn: Connection):
    job, following, waiting = begun(conn), next_job(), ask(conn)
    assert advance(conn, job, turn(conn, job), following=following)
    conn.execute("update jobs set publish_after = now() + interval '1 h'")
    jobs.cancel(conn, job.id)
    assert [job_row(conn, each) for each in (job.id, following.id, waiting)] == [
        *("done", "cancelled", "queued"),
    ]
    assert published(conn) == [waiting]
    assert jobs.ended(conn, job.id)
    assert violations(conn) == []


def test_a_later_job_of_the_chain_cancels_nothing_before_it(conn: Connection):
    job, following = begun(conn), next_job()
    assert advance(conn, job, turn(conn, job), following=following)
    metadata = claim(conn, following.id)
    assert metadata
    last = next_job("compaction")
    assert advance(conn, metadata, turn(conn, metadata), following=last)
    jobs.cancel(conn, last.id)
    assert [each.state for each in jobs.chain(conn, job.id)] == ["done", "done", "cancelled"]


def test_a_commit_that_comes_before_a_cancel_wins_and_nothing_follows(
    conn: Connection, dsn: str
):
    """The cancel waits for the commit, and then sees the job that it inserted."""
    job, following = begun(conn), next_job()
    minted = turn(conn, job)
    with psycopg.connect(dsn) as worker, ThreadPoolExecutor() as threads:
        assert advance(worker, job, minted, following=following)
        with psycopg.connect(dsn, autocommit=True) as operator:
            cancel = threads.submit(jobs.cancel, operator, job.id)
            wait_until(lambda: blocked(conn), description="the cancel waits for the commit")
            worker.commit()
            assert cancel.result(10).state == "done"  # pyright: ignore[reportOptionalMemberAccess]
    assert job_row(conn, following.id) == "cancelled"
    assert violations(conn) == []


def test_a_cancel_that_comes_before_the_commit_lets_it_stand_alone(conn: Connection, dsn: str):
    job, following = begun(conn), next_job()
    minted = turn(conn, job)
    with psycopg.connect(dsn) as operator, ThreadPoolExecutor() as threads:
        with operator.transaction():
            jobs.cancel(operator, job.id)
            commit = threads.submit(advance, conn, job, minted, following=following)
            with psycopg.connect(dsn, autocommit=True) as looker:
                wait_until(lambda: blocked(looker), description="the commit waits")
        operator.commit()
        assert commit.result(10)
    assert [each.state for each in jobs.chain(conn, job.id)] == ["done"]
    assert violations(conn) == []


def test_a_running_job_whose_worker_is_gone_is_cancelled_by_its_rescue(conn: Connection):
    job = begun(conn)
    jobs.cancel(conn, job.id)
    assert rescue.rescue(conn, job.id, attempt=job.attempt, limit=3) == "cancelled"
    assert types(conn)[-1] == "job.cancelled"
    assert violations(conn, ended=True) == []


def test_a_retry_is_a_new_job_that_names_the_old(conn: Connection):
    old = begun(conn, version="v1", key="k", busy="interrupt", options={"model": "m"})
    assert jobs.again(conn, old.id) is None  # it runs
    finish(conn, old, "failed")
    new = jobs.again(conn, old.id)
    assert new
    assert new.id != old.id
    assert (new.retry_of, new.chain_id, new.state, new.key) == (old.id, new.id, "queued", None)
    assert (new.version_id, new.attempts, new.kind) == ("v1", 0, "build")
    assert new.args == {"model": "m", "prompt": "make it", "asked": "build"}
    assert job_row(conn, old.id) == "failed"
    assert claim(conn, new.id)
    fresh = jobs.again(conn, old.id, fresh=True)
    assert fresh
    assert fresh.args["fresh"] is True
    assert jobs.again(conn, uuid4()) is None
    assert violations(conn) == []


def test_a_task_of_any_id_is_of_one_job(conn: Connection):
    job = uuid4()
    assert jobs.id_of_task(str(job)) == job
    assert jobs.id_of_task(f"{job}.3") == job
    assert jobs.id_of_task("a stranger's") == jobs.id_of_task("a stranger's")
    assert jobs.id_of_task("a.1") != jobs.id_of_task("a.2")
    assert jobs.id_of_task("") is None


def test_jobs_are_listed_with_what_is_open_first(conn: Connection):
    ended = begun(conn)
    finish(conn, ended, "failed")
    waiting = [ask(conn), ask(conn, project="q")]
    assert [each.id for each in listing.jobs(conn, Wanted())] == [*waiting, ended.id]
    assert [each.ended for each in listing.jobs(conn, Wanted())] == [False, False, True]
    job = claim(conn, waiting[0])
    assert job
    minted = turn(conn, replace(job, head=None))
    assert [each["minted_session_id"] for each in jobs.turns(conn, job.id)] == [minted]
    assert [each["outcome"] for each in jobs.resume_attempts(conn, job.id)] == ["trying"]
