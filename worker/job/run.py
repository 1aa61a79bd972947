"""Run one job to a verdict, and write down how it went. The row is the answer.

A message only wakes: whoever claims the row runs it, and a message for a job that has
ended, runs, or is not in turn changes nothing.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from uuid import UUID, uuid4

import psycopg
import psycopg_pool
import structlog

from config.settings import settings
from db.core.outages import may_pass
from db.core.pool import connection
from db.core.refusals import is_refused
from db.jobs import attempts, endings, jobs, limits
from db.jobs.attempts import Claimed
from db.sessions import rehearsal, turns
from worker.agent import Agent, the_cli
from worker.broker.publish import copy
from worker.failures.errors import Judgement, Stopped, Verdict, judge
from worker.failures.retry import on_blip
from worker.failures.sentences import for_people
from worker.job import files
from worker.job.attempt import Attempt
from worker.job.endings import Ran, tell_of_outage, write
from worker.job.lease import Lease, hold
from worker.job.turn import discard
from worker.live import checkpoints, progress
from worker.process import crash_points, drain, identity
from worker.session import recovery
from worker.workspace import places, workspace

log = structlog.get_logger()

CUT_OFF = Judgement(Verdict.LOST, "lease_lost")
STAND_BACK = timedelta(seconds=5)  # until it is looked at again whether a job may run here
TOLD_WITHIN = 1.0  # seconds; the main process hears of a signal to all of them a little later


def run(
    job_id: UUID,
    do: Callable[[Attempt], None],
    *,
    agent: Agent | None = None,
    chosen: bool = True,
) -> Ran:
    """Claim the job and do it. Never raises for what goes wrong in it.

    `chosen`: the relay, or the commit before it, sent for it; else it waits for its turn.
    """
    if drain.draining():
        return Ran("ignored", began=False)  # the row waits for another worker
    crash_points.reach("claim.before")
    asked = identity.now()
    try:
        claimed = _claim(job_id, chosen=chosen)
    except psycopg.Error as exc:
        if is_refused(exc):
            return _refuse(job_id, exc)
        raise
    if claimed is None:
        return replace(_not_claimed(job_id), began=False)
    crash_points.reach("claim.after")
    with (
        structlog.contextvars.bound_contextvars(
            project_id=claimed.project_id, job=str(job_id), kind=claimed.kind
        ),
        hold(claimed, asked=asked, beat=partial(_beat, claimed)) as lease,
    ):
        log.info("job.started", attempt=claimed.attempts)
        copy(claimed.project_id, claimed.told)
        ran = _attempt(claimed, lease, do, agent or the_cli())
    if lease.cut_off and ran.state == "ignored":
        ran = replace(ran, owed=(claimed, CUT_OFF))
    return _after_outage(ran, *ran.owed) if ran.owed else ran


def _after_outage(ran: Ran, job: Claimed, judgement: Judgement) -> Ran:
    try:
        return tell_of_outage(job, judgement, ran.error or "")
    except Exception as exc:
        log.warning("job.not_settled", error=type(exc).__name__)
        return ran


def _claim(job_id: UUID, *, chosen: bool) -> Claimed | None:
    """Claim the job. A claim whose answer was lost is asked for again as the same attempt."""
    attempt, tries = uuid4(), count()

    @on_blip
    def claim() -> Claimed | None:
        with connection() as conn:
            return attempts.claim(
                conn,
                job_id,
                attempt=attempt,
                runner=identity.runner(identity.WORKER_ID),
                lease=settings().lease,
                limit=settings().rescue_limit,
                chosen=chosen,
                again=next(tries) > 0,
            )

    return claim()


def _beat(job: Claimed, silence: float | None) -> None:
    """What Redis is told with each renewal of the hold."""
    if checkpoints.refresh(job.chain_id):
        progress.note_silence(job.id, silence)


def _refuse(job_id: UUID, exc: Exception) -> Ran:
    """No worker can begin it: a table does not take the claim."""
    judgement, text = judge(exc, resumed=False), for_people(exc)
    log.warning("job.refused", error_class=judgement.error_class, error=text)
    with connection() as conn:
        if not endings.refuse(conn, job_id, judgement.error_class, text):
            return Ran("ignored")
    return Ran("failed", judgement.error_class, text)


def _attempt(job: Claimed, lease: Lease, do: Callable[[Attempt], None], agent: Agent) -> Ran:
    at: Attempt | None = None
    try:
        with connection() as conn:
            begun = turns.begun(conn, job) if job.tried else []
            left = recovery.look(conn, job, begun)
            cwd = workspace.place(job)
            if places.check_own(conn, job, cwd):
                rehearsal.rehearse(conn, job)
        done = {turn.step for turn in begun if turn.outcome == "committed"}
        earlier = {turn.attempt for turn in begun}
        at = Attempt(job, lease, agent, cwd, done, left=left, earlier=earlier)
        files.provide(at)
        do(at)
    except Exception as exc:
        judgement = judge(exc, resumed=_resumed(at))
        if at:
            _discard(at, judgement)
        return _end(at.job if at else job, judgement, exc)
    except SystemExit:
        drain.wait(TOLD_WITHIN)
        if drain.draining():  # all processes of the worker were told to go, not this one alone
            told = Stopped("drained")
            _end(at.job if at else job, judge(told, resumed=_resumed(at)), told)
        raise
    log.info("job.done")
    return Ran("done")


def _discard(at: Attempt, judgement: Judgement) -> None:
    """A whole turn that was not committed: what it cost is written down."""
    if judgement.verdict is Verdict.LOST:
        return  # whoever takes the job over finds it, and commits it
    with contextlib.suppress(psycopg.Error, psycopg_pool.PoolTimeout):
        discard(at, judgement.error_class)


def _resumed(at: Attempt | None) -> bool:
    return bool(at and at.choice and at.choice.parent)


def _end(job: Claimed, judgement: Judgement, exc: BaseException) -> Ran:
    text = for_people(exc)
    log.warning(
        "job.not_done",
        verdict=judgement.verdict.value,
        error_class=judgement.error_class,
        exc_info=exc if judgement.error_class == "internal_error" else None,
        error=text,
    )
    try:
        return write(job, judgement, text)
    except Exception as again:
        # Postgres is away, most likely. If it stays so, the lease runs out, and the relay finds the row.
        log.warning("job.not_settled", error=type(again).__name__)
        owed = (job, judgement) if may_pass(again) else None
        return Ran("waits", judgement.error_class, text, owed=owed)


def _not_claimed(job_id: UUID) -> Ran:
    """A message that began nothing. Say why, and set aside what cannot go on now."""
    with connection() as conn:
        job = jobs.get(conn, job_id)
        if job and job.ended:
            return Ran(job.state, job.error_class, job.error)  # Flower shows it once more
        if job is None or job.state == "running":
            return Ran("ignored")
        if gone := endings.fail_orphan(conn, job_id):
            return Ran("failed", *gone)
        if limit := limits.standing(conn, identity.credential()):
            limits.park_waiting(
                conn,
                job_id,
                limit.credential,
                silent_after=settings().worker_silent_after,
            )
            return Ran("waits", limit.reason)
        if attempts.stand_back(
            conn,
            job_id,
            worker_id=identity.WORKER_ID,
            limit=settings().rescue_limit,
            pause=STAND_BACK,
        ):
            return Ran("waits", "last_chance", "Another that may kill this worker runs in it.")
    return Ran("ignored")
