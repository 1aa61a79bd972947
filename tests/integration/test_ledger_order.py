"""Order in a lane: a chain that has begun goes first, one at a time, the rest as asked."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import psycopg
from psycopg import Connection

from db.jobs import attempts, endings
from db.jobs.endings import Wait
from tests.conftest import Configure
from tests.ledger import (
    LEASE,
    RUNNER,
    advance,
    ask,
    at_once,
    begun,
    blocked,
    claim,
    contents,
    finish,
    job_row,
    next_job,
    one,
    turn,
    types,
)
from tests.waiting import wait_until


def test_a_claim_tells_the_runner_what_it_needs_and_the_watchers_that_it_began(
    conn: Connection,
):
    asked = ask(conn, version="v1", previous_session_id=str(uuid4()), options={"model": "m"})
    job = claim(conn, asked)
    assert job
    assert (job.id, job.chain_id, job.project_id, job.user_id) == (asked, asked, "p", "u")
    assert (job.kind, job.lane, job.version_id, job.attempts) == ("build", "main", "v1", 1)
    assert job.args == {
        "model": "m",
        "prompt": "make it",
        "busy": "enqueue",
        "asked": "build",
    }
    assert (job.head, job.fresh_next) == (None, False)
    assert [event["seq"] for event in job.told] == [1, 2, 3]
    assert types(conn) == ["job.queued", "chat.said", "job.started"]
    assert job_row(conn, asked, "host, pid, pid_started, worker_id") == (
        "host",
        4711,
        99,
        "worker",
    )


def test_a_job_that_runs_or_has_ended_or_is_not_due_is_not_claimed(conn: Connection):
    job = begun(conn)
    assert claim(conn, job.id) is None
    finish(conn, job, "failed")
    later = ask(conn, "chat_plan")
    conn.execute("update jobs set run_at = now() + interval '1 s' where id = %s", (later,))
    before = contents(conn)
    for each in (job.id, later, uuid4()):
        assert claim(conn, each) is None
    assert contents(conn) == before


def test_a_project_that_changed_hands_runs_nothing_of_its_last_owner(conn: Connection):
    asked = ask(conn)
    conn.execute("update projects set user_id = 'another'")
    assert claim(conn, asked) is None
    assert endings.fail_orphan(conn, asked)
    assert job_row(conn, asked, "state, error_class") == ("failed", "project_gone")
    assert not endings.fail_orphan(conn, asked)


def test_requests_of_a_lane_run_in_the_order_of_asking(conn: Connection):
    first, second = ask(conn), ask(conn)
    assert claim(conn, second) is None
    running = claim(conn, first)
    assert running
    assert claim(conn, second) is None
    finish(conn, running, "failed")
    assert claim(conn, second)


def test_a_chain_ends_before_the_next_one_begins(conn: Connection):
    first, second = begun(conn), ask(conn)
    following = next_job()
    assert advance(conn, first, turn(conn, first), following=following)
    assert claim(conn, second) is None
    metadata = claim(conn, following.id)
    assert metadata
    finish(conn, metadata, "failed")
    assert claim(conn, second)


def test_a_chain_that_has_begun_is_not_overtaken_by_one_that_was_asked_for_before(
    conn: Connection, dsn: str
):
    """A producer that took its place early and commits late comes after what has begun."""
    ask(conn, "chat_plan", project="p")
    conn.execute("update jobs set state = 'done', finished_at = now()")
    with psycopg.connect(dsn) as slow:
        late = ask(slow)
        running = begun(conn)
        slow.commit()
    assert job_row(conn, late, "pos") < job_row(conn, running.id, "pos")
    following = next_job()
    assert advance(conn, running, turn(conn, running), following=following)
    assert claim(conn, late) is None
    assert claim(conn, following.id)


def test_a_job_that_waits_for_its_next_try_keeps_its_place(conn: Connection):
    for wait in (
        Wait(delay=timedelta(minutes=1)),
        Wait(state="parked", delay=timedelta(minutes=1)),
    ):
        tried, second = begun(conn), ask(conn)
        assert endings.put_back(conn, tried, wait, []) is not None
        assert claim(conn, second) is None
        conn.execute("update jobs set run_at = now() where id = %s", (tried.id,))
        again = claim(conn, tried.id)
        assert again
        finish(conn, again, "failed")
        last = claim(conn, second)
        assert last
        finish(conn, last, "failed")


def test_of_eight_that_claim_a_job_one_has_it(conn: Connection, dsn: str):
    asked = ask(conn)
    won = [job for job in at_once(dsn, lambda own: claim(own, asked)) if job]
    assert len(won) == 1
    assert job_row(conn, asked, "attempt, attempts") == (won[0].attempt, 1)  # pyright: ignore[reportAttributeAccessIssue]
    assert types(conn) == ["job.queued", "chat.said", "job.started"]


def test_of_eight_jobs_of_a_lane_that_are_claimed_at_once_one_runs(conn: Connection, dsn: str):
    """Even where the order says nothing: all are of chains that have begun."""
    waiting = [ask(conn) for _ in range(8)]
    conn.execute("update jobs set pos = 1")
    found = at_once(dsn, lambda own: claim(own, waiting.pop()))
    assert len([job for job in found if job]) == 1
    assert one(conn, "select count(*) from jobs where state = 'running'") == 1


def test_a_second_runner_of_a_lane_is_impossible(conn: Connection):
    begun(conn)
    other = ask(conn)
    for lane, fits in (("main", False), ("branch", True)):
        try:
            conn.execute(
                "update jobs set state = 'running', attempt = id, lease_until = now(), lane = %s"
                " where id = %s",
                (lane, other),
            )
        except psycopg.errors.UniqueViolation:
            assert not fits
        else:
            assert fits


def test_lanes_and_projects_do_not_wait_for_each_other(conn: Connection):
    begun(conn)
    branch = ask(conn)
    conn.execute("update jobs set lane = 'branch' where id = %s", (branch,))
    assert claim(conn, branch) is None, "there is no such branch"
    conn.execute(
        "insert into branches (project_id, lane, user_id, from_session, head)"
        " values ('p', 'branch', 'u', 'a', 'a')"
    )
    assert claim(conn, branch)
    assert begun(conn, project="q")


def test_a_lane_that_seems_free_to_two_is_taken_by_one(conn: Connection, dsn: str):
    """Each sees no other running: the unique index decides, and the loser is told nothing."""
    first = ask(conn)
    with psycopg.connect(dsn) as slow:
        hidden = ask(slow)  # not yet visible to the first's claim
        assert claim(conn, first)
        slow.commit()
    assert claim(conn, hidden) is None


def test_a_renewal_writes_into_no_index(conn: Connection):
    job = begun(conn)
    with conn.transaction():
        assert attempts.renew(conn, job.id, job.attempt, LEASE) == "go on"
        assert one(conn, "select pg_stat_get_xact_tuples_hot_updated('jobs'::regclass)") == 1


def test_a_renewal_holds_the_job_and_hears_what_is_wanted(conn: Connection):
    job = begun(conn)
    conn.execute("update jobs set lease_until = now() + interval '1 s'")
    assert attempts.renew(conn, job.id, job.attempt, LEASE) == "go on"
    assert one(conn, "select lease_until > now() + interval '20 s' from jobs")
    assert attempts.wanted(conn, job.id, job.attempt) == "go on"
    ask(conn, busy="enqueue")
    assert attempts.wanted(conn, job.id, job.attempt) == "go on"
    newer = ask(conn, busy="interrupt")
    assert attempts.renew(conn, job.id, job.attempt, LEASE) == "replaced"
    conn.execute("update jobs set run_at = now() + interval '1 day' where id = %s", (newer,))
    assert attempts.wanted(conn, job.id, job.attempt) == "go on"
    conn.execute("update jobs set cancel_requested_at = now() where id = %s", (job.id,))
    assert attempts.renew(conn, job.id, job.attempt, LEASE) == "cancel"


def test_a_replaced_attempt_hears_that_it_is(conn: Connection):
    job = begun(conn)
    attempts.note_agent(conn, job.id, job.attempt, 1234)
    for other in (replace(job, attempt=uuid4()), replace(job, id=uuid4())):
        assert attempts.renew(conn, other.id, other.attempt, LEASE) is None
        assert attempts.wanted(conn, other.id, other.attempt) is None
        attempts.note_agent(conn, other.id, other.attempt, 9)
    assert job_row(conn, job.id, "agent_pid") == 1234
    finish(conn, job, "failed")
    assert attempts.renew(conn, job.id, job.attempt, LEASE) is None


def test_what_was_interrupted_is_told_to_the_request_that_took_its_place(conn: Connection):
    long_ago = begun(conn, prompt="long ago")
    conn.execute(
        "update jobs set state = 'cancelled', lease_until = null,"
        " error_class = 'replaced_by_request', finished_at = now() - interval '1 day'"
        " where id = %s",
        (long_ago.id,),
    )
    first = begun(conn, busy="interrupt")
    assert attempts.replaced_prompt(conn, first) is None
    newer = ask(conn, prompt="the newest", busy="interrupt")
    conn.execute(
        "update jobs set state = 'cancelled', lease_until = null, finished_at = now(),"
        " error_class = 'replaced_by_request' where id = %s",
        (first.id,),
    )
    job = claim(conn, newer, runner=RUNNER)
    assert job
    assert attempts.replaced_prompt(conn, job) == "make it"


def test_a_job_that_is_no_orphan_is_looked_at_without_its_lock(conn: Connection, dsn: str):
    asked = ask(conn)
    conn.execute("set lock_timeout = '3s'")
    with psycopg.connect(dsn) as operator:
        operator.execute("select from jobs for update")
        assert endings.fail_orphan(conn, asked) is None


def test_of_two_claims_of_one_user_at_once_the_second_counts_the_first(
    conn: Connection, dsn: str, configure: Configure
):
    configure(BATON_USER_SLOTS="1")
    first, second, anothers = (
        ask(conn),
        ask(conn, project="q"),
        ask(conn, project="r", user_id="v"),
    )
    with psycopg.connect(dsn, autocommit=True) as other, ThreadPoolExecutor(1) as aside:
        with conn.transaction():
            assert claim(conn, first)
            late = aside.submit(claim, other, second)
            wait_until(
                lambda: late.done() or blocked(conn), description="the second, told or waiting"
            )
        assert late.result() is None
    assert claim(conn, second) is None
    assert claim(conn, anothers)
