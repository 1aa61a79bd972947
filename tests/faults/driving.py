"""Jobs run here to their end whatever happens: what the relay does, without its pauses."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import UUID

import psycopg

from db.core import pool
from db.core.outages import may_pass
from db.jobs import jobs, rescue
from db.jobs.jobs import Job
from dev.stack.processes import carrying
from tests.conftest import keys_without_end
from tests.faults.wire import Wire, wired
from tests.invariants import violations
from tests.running import AtWork
from tests.waiting import wait_until

ROUNDS = 40  # deliveries until a chain counts as stuck
NO_LIMIT = 1000  # rescues


def drive(at_work: AtWork, asked: UUID, *, alone: bool = False) -> list[Job]:
    """Deliver the chain's jobs until it has ended; who waits is not waited for.

    `alone`: only the first of them; what follows is cancelled.
    """
    for _ in range(ROUNDS):
        if alone and at_work.job(asked).ended:
            jobs.cancel(at_work.conn, asked)
        waiting = [job for job in jobs.chain(at_work.conn, asked) if not job.ended]
        if not waiting:
            break
        one = waiting[0]
        if one.state == "running":  # nobody runs it: it was given up, and its lease ends
            give_up(at_work.conn, one.id)
        at_work.conn.execute("update jobs set run_at = now() where id = %s", (one.id,))
        try_to_run(at_work, one.id)
    return jobs.chain(at_work.conn, asked)


def try_to_run(at_work: AtWork, job_id: UUID) -> None:
    """As a message does: when Postgres is away it is gone, and the relay sends another."""
    try:
        at_work.run(job_id)
    except psycopg.Error as exc:
        if not may_pass(exc):
            raise


def give_up(conn: psycopg.Connection, job_id: UUID) -> None:
    """Let the lease of a job that nobody runs come to its end."""
    conn.execute(
        "update jobs set lease_until = now() - interval '1 ms' where id = %s", (job_id,)
    )
    assert rescue.rescue(conn, job_id, attempt=None, limit=NO_LIMIT)


def wrong(at_work: AtWork, redis_url: str = "") -> list[str]:
    """What does not hold although nothing is left to do: in the ledger, Redis, /proc."""
    found = violations(at_work.conn, ended=True, stored=True)
    for (attempt,) in at_work.rows("select distinct attempt from turns"):
        found += [
            f"{one} of {attempt} lives" for one in carrying("BATON_ATTEMPT", str(attempt))
        ]
    return found + (keys_without_end(redis_url) if redis_url else [])


@contextmanager
def running(at_work: AtWork, job_id: UUID) -> Generator[UUID]:
    """The job runs in a thread, its agent at a `sleep`; gives the attempt, waits for its end."""
    thread = threading.Thread(target=try_to_run, args=(at_work, job_id))
    thread.start()
    try:
        yield at_its_sleep(at_work, job_id)
    finally:
        thread.join(40)
        assert not thread.is_alive()


def at_its_sleep(at_work: AtWork, job_id: UUID) -> UUID:
    """The job's attempt, once its agent runs `sleep`."""

    def found() -> UUID | None:
        attempt = at_work.value("select attempt from jobs where id = %s", job_id)
        at_work_now = carrying("BATON_ATTEMPT", str(attempt)) if attempt else []
        return attempt if any(program(one.pid) == "sleep" for one in at_work_now) else None

    attempt = wait_until(found, timeout=30, description="the agent's sleep")
    assert attempt
    return attempt


def program(pid: int) -> str:
    """What the kernel calls the process; empty once it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@contextmanager
def through_a_wire(at_work: AtWork, dsn: str) -> Generator[Wire]:
    """The workers' way to Postgres is a wire; the test's own is not."""
    with wired(dsn) as wire:
        at_work.configure(DATABASE_URL=wire.url)
        pool.close()
        try:
            yield wire
        finally:
            pool.close()
            at_work.configure(DATABASE_URL=dsn)


@contextmanager
def meanwhile(strike: Callable[[], object], pauses: Callable[[], float]) -> Generator[None]:
    """Strike again and again, with these pauses (seconds), until the block ends."""
    done = threading.Event()

    def again() -> None:
        while not done.wait(pauses()):
            strike()

    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(30)
        assert not thread.is_alive()
