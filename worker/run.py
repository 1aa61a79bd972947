"""Run one job to a verdict, and write down how it went. The row is the answer.

A message only wakes: whoever claims the row runs it, and a message for a job that has
ended, runs, or is not in turn changes nothing.
"""

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from uuid import UUID, uuid4

import psycopg
import psycopg_pool
import structlog

from config.settings import settings
from db import attempts, endings, jobs, limits, turns
from db.attempts import Claimed
from db.endings import End, Wait
from db.events import Event
from db.jobs import NEVER
from db.pool import connection
from worker import checkpoints, drain, host, points, recovery, workspace
from worker.agent import Agent
from worker.agent.claude import claude
from worker.chain import Attempt
from worker.commit import about, queued
from worker.errors import Judgement, Verdict, for_people, judge, tries_of
from worker.following import despite_failure
from worker.lease import Lease, hold
from worker.publish import announce
from worker.retry import backoff, on_blip

log = structlog.get_logger()

WORKER_PAUSE = timedelta(seconds=30)  # before a job is tried again that this worker cannot run
WORKER_ID = host.boot().rpartition("/")[0][:8]


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a delivery: `ignored`, `waits`, or the job's final state."""

    state: str
    error_class: str | None = None
    error: str | None = None


def run(job_id: UUID, do: Callable[[Attempt], None], *, agent: Agent = claude) -> Ran:
    """Claim the job and do it. Never raises for what goes wrong in it."""
    if drain.draining():
        return Ran("ignored")  # the row waits for another worker
    points.reach("claim.before")
    asked = time.monotonic()
    claimed = _claim(job_id)
    if claimed is None:
        return _not_claimed(job_id)
    points.reach("claim.after")
    with (
        structlog.contextvars.bound_contextvars(job=str(job_id), kind=claimed.kind),
        hold(claimed, asked=asked, beat=lambda: checkpoints.refresh(claimed.chain_id)) as lease,
    ):
        log.info("job.started", attempt=claimed.attempts)
        _tell_start(claimed)
        return _attempt(claimed, lease, do, agent)


def _claim(job_id: UUID) -> Claimed | None:
    """Claim the job. A claim whose answer was lost is asked for again as the same attempt."""
    attempt, tries = uuid4(), count()

    @on_blip
    def claim() -> Claimed | None:
        with connection() as conn:
            return attempts.claim(
                conn,
                job_id,
                attempt=attempt,
                runner=host.runner(WORKER_ID),
                lease=settings().lease,
                again=next(tries) > 0,
            )

    return claim()


def _tell_start(job: Claimed) -> None:
    """Copy the events that the claim wrote to where watchers read them."""
    started = {**about(job), "attempt": job.attempts, "host": socket.gethostname()}
    told = [Event("job.started", job.id, started)]
    if not job.was_announced:
        told.insert(0, Event("job.queued", job.id, about(job)))
    announce(job.project_id, job.seq, told, [])


def _attempt(job: Claimed, lease: Lease, do: Callable[[Attempt], None], agent: Agent) -> Ran:
    at: Attempt | None = None
    try:
        with connection() as conn:
            begun = turns.begun(conn, job)
            left = recovery.look(conn, job, begun)
        done = {turn.step for turn in begun if turn.outcome == "committed"}
        earlier = {turn.attempt for turn in begun}
        cwd = workspace.place(job)
        at = Attempt(job, lease, agent, cwd, done, left=left, earlier=earlier)
        at.provide()
        do(at)
    except Exception as exc:
        if at and at.pending:
            _discard(at, exc)
        return _settle(at.job if at else job, exc, resumed=_resumed(at))
    log.info("job.done")
    return Ran("done")


def _discard(at: Attempt, exc: Exception) -> None:
    """A whole turn that was not committed: what it cost is written down."""
    judgement = judge(exc, resumed=_resumed(at))
    if judgement.verdict is Verdict.LOST:
        return  # whoever takes the job over finds it, and commits it
    with contextlib.suppress(psycopg.Error, psycopg_pool.PoolTimeout):
        at.discard(judgement.error_class)


def _resumed(at: Attempt | None) -> bool:
    return bool(at and at.choice and at.choice.parent)


def _settle(job: Claimed, exc: Exception, *, resumed: bool) -> Ran:
    judgement = judge(exc, resumed=resumed)
    log.warning(
        "job.not_done",
        verdict=judgement.verdict.value,
        error_class=judgement.error_class,
        exc_info=exc if judgement.error_class == "internal_error" else None,
        error=for_people(exc),
    )
    try:
        return _write(job, judgement, for_people(exc))
    except Exception as again:
        # Postgres is away: the lease runs out, and the relay finds the row.
        log.warning("job.not_settled", error=type(again).__name__)
        return Ran("waits", judgement.error_class, for_people(exc))


@on_blip
def _write(job: Claimed, judgement: Judgement, text: str) -> Ran:
    verdict, error_class = judgement.verdict, judgement.error_class
    match verdict:
        case Verdict.LOST:
            return Ran("ignored", error_class, text)
        case Verdict.CANCELLED:
            return _finish(job, End(state="cancelled", error_class=error_class, error=text))
        case Verdict.INTERRUPTED:
            return _wait(job, Wait(counted=False, error_class=error_class, error=text))
        case Verdict.WAIT:
            pause = Wait(delay=WORKER_PAUSE, counted=False, error_class=error_class, error=text)
            return _wait(job, pause)
        case Verdict.PARK:
            return _park(job, judgement, text)
        case Verdict.ASK:
            return _wait(
                job,
                Wait(
                    state="parked",
                    until=NEVER,
                    counted=False,
                    error_class=error_class,
                    error=text,
                ),
            )
        case Verdict.RETRY if _may_retry(job, error_class):
            delay = backoff(job.attempts)
            return _wait(job, Wait(delay=delay, error_class=error_class, error=text))
        case _:
            return _finish(
                job,
                End(
                    state="failed",
                    error_class=error_class,
                    error=text,
                    following=despite_failure(job),
                ),
            )


def _may_retry(job: Claimed, error_class: str) -> bool:
    if job.attempts >= settings().attempts:
        return False
    tries = tries_of(error_class, settings().attempts)
    if tries == settings().attempts:
        return True
    with connection() as conn:
        return turns.failed_as(conn, job.id, error_class) < tries


def _park(job: Claimed, judgement: Judgement, text: str) -> Ran:
    """Set the job aside until its credential may be used again; tell of it once."""
    with connection() as conn:
        known = limits.standing(conn, host.credential())
        until = limits.impose(
            conn,
            host.credential(),
            wait=judgement.wait,
            until=judgement.until,
            reason=judgement.error_class,
        )
    return _wait(
        job,
        Wait(
            state="parked",
            until=until,
            counted=False,
            credential=host.credential(),
            error_class=judgement.error_class,
            error=text,
        ),
        limited=None if known else judgement.error_class,
    )


def _wait(job: Claimed, wait: Wait, *, limited: str | None = None) -> Ran:
    kind = "job.parked" if wait.state == "parked" else "job.waits"
    body = {
        **about(job),
        "error_class": wait.error_class,
        "error": wait.error,
        "until": wait.until.isoformat() if wait.until else None,
        "delay": round(wait.delay.total_seconds(), 3),
    }
    told = [Event(kind, job.id, body)]
    if limited:
        told.append(Event("credential.limited", job.id, {**about(job), "reason": limited}))
    with connection() as conn:
        points.reach("ending.before")
        put = endings.put_back(conn, job, wait, told)
        points.reach("ending.after")
    if put is None:  # replaced meanwhile, or to be cancelled
        return _finish(
            job, End(state="cancelled", error_class="cancelled", error="Cancelled on request.")
        )
    announce(job.project_id, put[0], told, [])
    return Ran("waits", wait.error_class, wait.error)


def _finish(job: Claimed, end: End) -> Ran:
    body = {**about(job), "error_class": end.error_class, "error": end.error}
    told = [Event(f"job.{end.state}", job.id, body)]
    if end.following:
        told.append(queued(job, end.following))
    with connection() as conn:
        points.reach("ending.before")
        written = endings.finish(conn, job, end, told, settings().publish_after)
        points.reach("ending.after")
    if written is None:
        return _as_it_stands(job, Ran("ignored", end.error_class, end.error))
    announce(job.project_id, written[0], told, written[1])
    return Ran(end.state, end.error_class, end.error)


def _as_it_stands(job: Claimed, otherwise: Ran) -> Ran:
    """What became of an attempt that there is nothing left to end of: another's it may be, or
    it was ended, or committed, by a statement whose answer was lost."""
    with connection() as conn:
        over = endings.of_attempt(conn, job)
    if over is None:
        return otherwise
    state, error_class, error = over
    return Ran("waits" if state in ("queued", "parked") else state, error_class, error)


def _not_claimed(job_id: UUID) -> Ran:
    """A message that began nothing. Say why, and set aside what cannot go on now."""
    with connection() as conn:
        job = jobs.get(conn, job_id)
        if job and job.ended:
            return Ran(job.state, job.error_class, job.error)  # Flower shows it once more
        if job is None or job.state == "running":
            return Ran("ignored")
        if endings.fail_orphan(conn, job_id):
            return Ran("failed", "project_gone", "The project is gone.")
        if limit := limits.standing(conn, host.credential()):
            limits.park_waiting(conn, job_id, limit)
            return Ran("waits", limit.reason)
    return Ran("ignored")


def without_turn(at: Attempt, result: dict[str, object]) -> None:
    """End the job with a result and the head where it is: a step that was skipped."""
    job = at.job
    end = End(state="done", result=result)
    told = [Event("job.done", job.id, {**about(job), "result": result})]
    with connection() as conn:
        written = endings.finish(conn, job, end, told, settings().publish_after)
    if written is not None:
        announce(job.project_id, written[0], told, written[1])
