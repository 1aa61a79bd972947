"""A refused key stops the fleet: one event, no job failed, and all go on once it is mended."""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from threading import Barrier, BrokenBarrierError
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection

from db.core.pool import connection
from db.jobs import limits
from db.jobs.jobs import NEVER
from tasks.build import do_build
from tests.ledger import ask
from tests.running import AtWork
from worker.agent import Request, Turn, Watch
from worker.agent.store import JobStore
from worker.failures.errors import AgentFailed
from worker.job.run import Ran, run
from worker.process import identity

WORKERS, JOBS = 4, 100


@pytest.mark.agent("direct")
def test_a_refused_key_stops_the_fleet_with_one_event_and_no_job_fails(at_work: AtWork):
    at_work.begin("write a.txt: hello")  # the workers' programs are there
    why = "authentication_failed"
    asked = [ask(at_work.conn, project=f"p{n}") for n in range(JOBS)]
    together = Barrier(WORKERS)  # all find it out before any has written it down

    def refused(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        try:
            together.wait(30)
        except BrokenBarrierError:
            pytest.fail("another turn began although the key was known to be refused")
        raise AgentFailed(why, "No.")

    def deliver(job_id: UUID) -> Ran:
        return run(job_id, do_build, agent=refused)

    with ThreadPoolExecutor(WORKERS) as workers:
        left = iter(asked)
        first = list(workers.map(deliver, islice(left, WORKERS)))
        rest = list(workers.map(deliver, left))
    assert {(ran.state, ran.error_class or why) for ran in (*first, *rest)} == {("waits", why)}
    states = "select state, attempts, count(*) from jobs where id = any(%s) group by 1, 2"
    assert at_work.rows(states, asked) == [("parked", 0, JOBS)]
    told = at_work.rows("select type, count(*) from events group by 1 order by 1")
    assert ("credential.limited", 1) in told
    assert ("job.parked", WORKERS) in told
    assert at_work.value("select count(*) from turns where outcome = 'failed'") == WORKERS
    assert at_work.rows("select until from limits") == [(NEVER,)]
    with connection() as conn:
        assert limits.clear(conn, identity.credential()) == JOBS
    assert at_work.rows(states, asked) == [("queued", 0, JOBS)]


def test_of_two_who_find_it_out_at_once_one_tells(conn: Connection, dsn: str):
    with psycopg.connect(dsn) as other, ThreadPoolExecutor() as beside:
        assert limits.impose(other, "k", wait=None, reason="billing_error") == (NEVER, True)
        second = beside.submit(limits.impose, conn, "k", wait=None, reason="billing_error")
        other.commit()
        assert second.result(10) == (NEVER, False)
    conn.execute("update limits set until = now() - interval '1 s'")
    assert limits.impose(conn, "k", wait=None, reason="billing_error") == (NEVER, True)
