"""Jobs of dead workers: back at once and for free, or set aside, or cancelled; told once."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection

from db.jobs import attempts, jobs, rescue
from db.jobs.attempts import Claimed
from tests.invariants import violations
from tests.ledger import (
    RUNNER,
    advance,
    ask,
    at_once,
    begun,
    claim,
    contents,
    finish,
    job_row,
    one,
    published,
    turn,
    types,
)
from tests.lock_waits import lock_waits

LIMIT = 3


def stands_back(conn: Connection, job_id: UUID) -> bool:
    return attempts.stand_back(
        conn, job_id, worker_id=RUNNER.worker_id, limit=LIMIT, pause=timedelta(seconds=5)
    )


def expire(conn: Connection) -> None:
    conn.execute("update jobs set lease_until = now() - interval '1 s' where state = 'running'")


def test_a_dead_ones_row_that_somebody_holds_keeps_no_other_waiting(conn: Connection, dsn: str):
    held, free = begun(conn, project="p"), begun(conn, project="q")
    expire(conn)
    with psycopg.connect(dsn) as operator:
        operator.execute("select from jobs where id = %s for update", (held.id,))
        assert rescue.expired(conn) == [free.id]
    assert set(rescue.expired(conn)) == {held.id, free.id}


def test_a_dead_ones_project_that_somebody_holds_keeps_no_other_waiting(
    conn: Connection, dsn: str
):
    held = [begun(conn, project=f"p{n}") for n in range(101)]
    free = begun(conn, project="q")
    expire(conn)
    with psycopg.connect(dsn) as operator:
        operator.execute("select from projects where project_id <> 'q' for update")
        assert rescue.expired(conn) == [free.id], "however many are before it"
        waits = lock_waits(conn)
        for attempt in (
            None,
            held[0].attempt,
        ):  # a lease that has run out; a runner that is known to be dead
            assert rescue.rescue(conn, held[0].id, attempt=attempt, limit=LIMIT) is None
        assert waits == []
    assert len(rescue.expired(conn)) == 100
    assert rescue.rescue(conn, held[0].id, attempt=None, limit=LIMIT) == "queued"


def test_a_job_whose_lease_ran_out_is_queued_again_at_no_cost(conn: Connection):
    job = begun(conn)
    minted = turn(conn, job)
    assert rescue.expired(conn) == []
    assert rescue.rescue(conn, job.id, attempt=None, limit=LIMIT) is None
    expire(conn)
    assert rescue.expired(conn) == [job.id]
    assert rescue.rescue(conn, job.id, attempt=None, limit=LIMIT) == "queued"
    assert job_row(conn, job.id, "attempts, rescues, lease_until, error_class") == (
        *(0, 1, None, "worker_died"),
    )
    assert one(conn, "select run_at <= now() and publish_after <= now() from jobs")
    assert one(conn, "select outcome from turns") == "abandoned"
    assert conn.execute("select outcome, reason from session_resume_attempts").fetchall() == [
        ("abandoned", "worker_died")
    ]
    assert types(conn)[-1] == "job.rescued"
    again = claim(conn, job.id)
    assert again
    assert (again.attempts, again.rescues) == (1, 1)
    assert advance(conn, job, minted) is None  # the dead one's attempt
    assert violations(conn) == []


def test_of_jobs_that_one_more_death_would_set_aside_a_worker_runs_one_at_a_time(
    conn: Connection,
):
    """They died together: of the next death one of them is to be blamed, and no other."""
    asked = [ask(conn, project=project) for project in "abc"]
    conn.execute("update jobs set rescues = 2 where project_id in ('a', 'b')")
    elsewhere = replace(RUNNER, worker_id="another worker")
    first = claim(conn, asked[0])
    assert first
    before = contents(conn)
    assert claim(conn, asked[1]) is None
    assert contents(conn) == before
    assert stands_back(conn, asked[1])
    assert one(conn, "select publish_after > now() from jobs where project_id = 'b'")
    assert not stands_back(conn, asked[2]), "it has killed nobody"
    assert claim(conn, asked[2])  # has killed nobody yet
    assert claim(conn, asked[1], runner=elsewhere)
    again = ask(conn, project="d")
    conn.execute("update jobs set rescues = 2 where id = %s", (again,))
    assert claim(conn, again) is None
    finish(conn, first, "failed")
    assert claim(conn, again)
    assert violations(conn) == []


def test_where_the_first_death_sets_a_job_aside_new_jobs_still_run_beside_each_other(
    conn: Connection,
):
    for project in "ab":
        assert attempts.claim(
            conn,
            ask(conn, project=project),
            attempt=uuid4(),
            runner=RUNNER,
            lease=timedelta(seconds=30),
            limit=1,
        )


def test_a_runner_that_is_known_to_be_dead_is_not_waited_for(conn: Connection):
    job = begun(conn)
    assert rescue.running_on(conn, "boot") == [(job.id, job.attempt, 4711, 99)]
    assert rescue.running_on(conn, "another") == []
    assert rescue.rescue(conn, job.id, attempt=uuid4(), limit=LIMIT) is None
    assert rescue.rescue(conn, job.id, attempt=job.attempt, limit=LIMIT) == "queued"
    assert rescue.running_on(conn, "boot") == []


def test_of_two_rescuers_one_has_it(conn: Connection, dsn: str):
    job = begun(conn)
    expire(conn)
    found = at_once(dsn, lambda own: rescue.rescue(own, job.id, attempt=None, limit=LIMIT))
    assert sorted(found, key=str) == [*[None] * 7, "queued"]
    assert types(conn).count("job.rescued") == 1


def test_a_commit_that_came_first_is_not_rescued(conn: Connection):
    job = begun(conn)
    assert advance(conn, job, turn(conn, job))
    before = contents(conn)
    assert rescue.rescue(conn, job.id, attempt=job.attempt, limit=LIMIT) is None
    assert contents(conn) == before


def test_a_job_that_kills_its_workers_is_set_aside_and_the_lane_goes_on(conn: Connection):
    job: Claimed | None = begun(conn)
    waiting = ask(conn)
    assert job
    last, states = job, list[str | None]()
    while job:
        last = job
        states.append(rescue.rescue(conn, job.id, attempt=job.attempt, limit=LIMIT))
        conn.execute(
            "update jobs set publish_after = now() + interval '1 h' where id = %s", (waiting,)
        )
        job = claim(conn, job.id)
    assert states == ["queued", "queued", "quarantined"]
    found = jobs.get(conn, last.id)
    assert found
    assert found.ended
    assert (
        found.error
        == "It killed 3 workers and was set aside: look at it, then `baton retry` it."
    )
    assert types(conn)[-1] == "job.quarantined"
    assert claim(conn, waiting)
    assert violations(conn) == []


def test_the_next_of_the_lane_is_published_when_one_is_set_aside(conn: Connection):
    job, waiting = begun(conn), ask(conn)
    conn.execute("update jobs set publish_after = now() + interval '1 h'")
    assert rescue.rescue(conn, job.id, attempt=job.attempt, limit=1) == "quarantined"
    assert published(conn) == [waiting]
    assert jobs.again(conn, job.id)


def test_a_lease_that_was_renewed_meanwhile_is_left_alone(conn: Connection):
    job = begun(conn)
    expire(conn)
    assert attempts.renew(conn, job.id, job.attempt, timedelta(seconds=30)) == "go on"
    assert rescue.rescue(conn, job.id, attempt=None, limit=LIMIT) is None
