"""Parked credentials: their jobs wait, others go on, and whoever lifts a limit releases all."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import psycopg
from psycopg import Connection

from db.core.events import Event
from db.jobs import endings, limits, outbox, workers
from db.jobs.attempts import Claimed
from db.jobs.endings import Wait
from db.jobs.jobs import NEVER
from db.jobs.workers import Worker
from tests.invariants import violations
from tests.ledger import (
    RUNNER,
    ask,
    begun,
    blocked,
    claim,
    contents,
    finish,
    job_row,
    next_job,
    one,
    published,
    turn,
    types,
)
from tests.waiting import wait_until

OURS = RUNNER.credential
HOUR = timedelta(hours=1)


def park_waiting(conn: Connection, job: UUID) -> None:
    limits.park_waiting(conn, job, OURS, silent_after=HOUR)


def work_with(conn: Connection, credential: str) -> None:
    """A worker with this credential is online."""
    worker = Worker(
        credential, "host", 1, slots=2, box=None, cli_version="2", credential=credential
    )
    workers.report(conn, worker)


def park(conn: Connection, job: Claimed, until: datetime) -> None:
    wait = Wait(
        state="parked", until=until, counted=False, credential=OURS, error_class="limit"
    )
    assert endings.put_back(conn, job, wait, [Event("job.parked", job.id)])


def test_a_try_that_is_put_back_waits_as_long_as_it_was_told(conn: Connection):
    job = begun(conn)
    turn(conn, job)
    wait = Wait(delay=HOUR, error_class="overloaded", error="Too much.")
    put = endings.put_back(conn, job, wait, [Event("job.waits", job.id)])
    assert put
    assert [event["seq"] for event in put] == [4]
    assert job_row(conn, job.id, "state, attempts, error_class, error, lease_until") == (
        *("queued", 1, "overloaded", "Too much.", None),
    )
    assert one(
        conn, "select run_at - now() > interval '59 min' and publish_after = run_at from jobs"
    )
    assert one(conn, "select outcome || ':' || error_class from turns") == "failed:overloaded"
    assert one(conn, "select outcome || ':' || reason from session_resume_attempts") == (
        "failed:overloaded"
    )
    assert claim(conn, job.id) is None
    conn.execute("update jobs set run_at = now()")
    again = claim(conn, job.id)
    assert again
    assert again.attempts == 2
    assert endings.put_back(conn, again, replace(wait, counted=False), []) is not None
    assert job_row(conn, job.id, "attempts") == 1
    assert violations(conn) == []


def test_a_replaced_attempt_puts_nothing_back(conn: Connection):
    job = begun(conn)
    before = contents(conn)
    other = replace(job, attempt=job.id)
    assert endings.put_back(conn, other, Wait(), [Event("job.waits", job.id)]) is None
    assert contents(conn) == before


def test_a_limit_stops_the_claims_of_its_credential_alone(conn: Connection):
    until, _ = limits.impose(conn, OURS, wait=HOUR, reason="rate_limit")
    asked = ask(conn)
    assert claim(conn, asked) is None
    assert types(conn) == []
    assert claim(conn, asked, runner=replace(RUNNER, credential="another"))
    standing = limits.standing(conn, OURS)
    assert standing
    assert (standing.until, standing.reason) == (until, "rate_limit")
    assert limits.standing(conn, "another") is None
    assert limits.in_force(conn) == [standing]


def test_a_limit_that_has_passed_stops_nothing(conn: Connection):
    limits.impose(conn, OURS, wait=timedelta(seconds=-1), reason="rate_limit")
    assert limits.in_force(conn) == []
    assert begun(conn)


def test_of_two_limits_the_longer_one_holds(conn: Connection):
    longer, _ = limits.impose(conn, OURS, wait=HOUR, reason="a")
    assert limits.impose(conn, OURS, wait=timedelta(seconds=1), reason="b") == (longer, False)
    assert limits.impose(conn, OURS, wait=None, reason="c") == (NEVER, False)


def test_a_parked_job_keeps_its_place_and_goes_on_when_its_limit_is_lifted(conn: Connection):
    until, _ = limits.impose(conn, OURS, wait=None, reason="authentication_failed")
    asked = ask(conn)
    running = claim(conn, asked, runner=replace(RUNNER, credential="another"))
    assert running
    second, elsewhere = ask(conn), ask(conn, project="q")
    park(conn, running, until)
    assert job_row(conn, asked, "state, attempts, run_at, credential") == (
        "parked",
        0,
        NEVER,
        OURS,
    )
    assert not {asked, second} & set(published(conn))
    assert limits.clear(conn, "another") == 0
    assert limits.clear(conn, OURS) == 1
    assert job_row(conn, asked, "state, credential") == ("queued", None)
    assert claim(conn, second) is None
    assert claim(conn, asked)
    assert claim(conn, elsewhere)
    assert limits.in_force(conn) == []
    assert violations(conn) == []


def test_a_parked_job_goes_on_by_itself_when_the_time_has_come(conn: Connection):
    job = begun(conn)
    park(conn, job, limits.impose(conn, OURS, wait=HOUR, reason="rate_limit")[0])
    conn.execute("update jobs set run_at = now(), publish_after = now()")
    conn.execute("update limits set until = now()")
    assert published(conn) == [job.id]
    assert claim(conn, job.id)


def test_a_job_that_waits_for_a_limited_credential_is_parked_and_keeps_its_place(
    conn: Connection,
):
    first, second = ask(conn), ask(conn)
    limits.impose(conn, OURS, wait=HOUR, reason="rate_limit")
    standing = limits.standing(conn, OURS)
    assert standing
    park_waiting(conn, first)
    assert job_row(conn, first, "state, run_at, credential") == ("parked", standing.until, OURS)
    assert claim(conn, second, runner=replace(RUNNER, credential="another")) is None
    assert limits.clear(conn, OURS) == 1


def test_a_job_that_waits_for_a_later_time_is_not_parked(conn: Connection):
    """It would be due as soon as the limit is lifted."""
    waiting = ask(conn)
    conn.execute("update jobs set run_at = now() + interval '2 h'")
    limits.impose(conn, OURS, wait=HOUR, reason="rate_limit")
    before = contents(conn)
    park_waiting(conn, waiting)
    assert limits.clear(conn, OURS) == 0
    assert contents(conn)["jobs"] == before["jobs"]
    assert claim(conn, waiting) is None


def test_no_job_is_parked_for_a_limit_that_was_lifted_meanwhile(conn: Connection, dsn: str):
    """Else nobody would ever let it go on."""
    waiting, job = ask(conn, project="q"), begun(conn)
    until, _ = limits.impose(conn, OURS, wait=None, reason="authentication_failed")
    with psycopg.connect(dsn) as operator, ThreadPoolExecutor() as threads:
        operator.execute("select 1")  # in a transaction from here on
        assert limits.clear(operator, OURS) == 0
        parked = threads.submit(park, conn, job, until)
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the parking waits")
            operator.commit()
            parked.result(10)
    park_waiting(conn, waiting)
    assert job_row(conn, job.id, "state, credential") == ("queued", None)
    assert job_row(conn, waiting) == "queued"
    assert claim(conn, job.id)


def test_a_parked_job_goes_on_wherever_a_credential_works(conn: Connection):
    """Also one that an old worker parks when the new one is there already: a rolling deploy."""
    parked = [begun(conn, project=project) for project in "pq"]
    park(conn, parked[0], limits.impose(conn, OURS, wait=None, reason="billing_error")[0])
    work_with(conn, OURS)
    assert outbox.adopt(conn, silent_after=HOUR) == 0
    work_with(conn, "new")
    for job in parked:
        if job_row(conn, job.id) == "running":
            park(conn, job, NEVER)
        assert outbox.adopt(conn, silent_after=HOUR) == 1
        assert job_row(conn, job.id, "state, credential") == ("queued", None)
        assert claim(conn, job.id, runner=replace(RUNNER, credential="new"))


def test_a_job_that_waits_to_be_answered_is_adopted_by_nobody(conn: Connection):
    job = begun(conn)
    wait = Wait(state="parked", until=NEVER, counted=False, error_class="ask")
    assert endings.put_back(conn, job, wait, [Event("job.parked", job.id)])
    work_with(conn, "new")
    assert outbox.adopt(conn, silent_after=HOUR) == 0


def test_a_job_that_meets_a_limited_worker_waits_for_another(conn: Connection):
    """While another worker's credential works, it is not parked: only sent again."""
    waiting = ask(conn)
    assert published(conn) == [waiting]
    limits.impose(conn, OURS, wait=None, reason="authentication_failed")
    work_with(conn, OURS)
    work_with(conn, "new")
    park_waiting(conn, waiting)
    assert job_row(conn, waiting, "state, published_at, publish_after > now()") == (
        *("queued", None, True),
    )


def test_a_parked_job_wakes_nobody_when_its_limit_is_extended(conn: Connection):
    """Sixty jobs made 500 messages in 48 s: none may be sent while no credential works."""
    work_with(conn, OURS)
    waiting = [ask(conn, project=f"p{n}") for n in range(5)]
    limits.impose(conn, OURS, wait=HOUR, reason="rate_limit")
    for job in waiting:
        park_waiting(conn, job)
    conn.execute("update jobs set run_at = now(), publish_after = now()")  # its first end
    for job in waiting:  # a message that was out already
        park_waiting(conn, job)
    until = limits.standing(conn, OURS)
    assert until
    assert {job_row(conn, job, "state, run_at") for job in waiting} == {("parked", until.until)}


def test_a_job_that_failed_for_good_lets_the_chain_or_the_lane_go_on(conn: Connection):
    job, waiting = begun(conn), ask(conn)
    ended = finish(conn, job, "failed", next_job("compaction"))
    assert ended
    assert [m.kind for m in ended[1]] == ["compaction"]
    compaction = claim(conn, ended[1][0].id)
    assert compaction
    assert finish(conn, compaction, "failed")
    assert published(conn) == [waiting]


def test_a_job_is_parked_until_the_limits_end_as_it_is_by_then(conn: Connection):
    """It was to be cleared by somebody when the job looked; since then it ends by itself."""
    job = begun(conn)
    never, _ = limits.impose(conn, OURS, wait=None, reason="billing_error")
    limits.clear(conn, OURS)
    until, _ = limits.impose(conn, OURS, wait=HOUR, reason="rate_limit")
    park(conn, job, never)
    assert job_row(conn, job.id, "state, run_at, publish_after") == ("parked", until, until)
