"""How an attempt ends that did not commit: its verdict, written into the job's row.

Whatever is written states the attempt, so that it changes nothing where another has the job.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog
import tenacity
from psycopg import Connection

from config.settings import settings
from db.core.events import Event, Written
from db.core.outages import may_pass
from db.core.pool import connection, transaction
from db.jobs import attempts, checks, endings, limits, rescue
from db.jobs.attempts import Claimed
from db.jobs.endings import End, Wait
from db.jobs.jobs import NEVER
from db.jobs.lanes import Next
from db.projects import races
from db.sessions import turns
from worker.broker.publish import announce
from worker.failures.errors import AttemptReplaced, Judgement
from worker.failures.retry import PAUSE, backoff, on_blip
from worker.failures.sentences import STOP_TEXTS
from worker.failures.verdicts import ELSEWHERE, Verdict, tries_of
from worker.job.job_events import about, queued
from worker.job.successors import despite_failure
from worker.process import crash_points, drain, identity

log = structlog.get_logger()

WORKER_PAUSE = timedelta(seconds=30)  # before a job is tried again that this worker cannot run
LONGER = 3  # times that the pause after an outage grows
OUTAGE = 600  # seconds for which a worker waits for Postgres to tell it that it lives


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a delivery: `ignored`, `waits`, or the job's final state.

    `began`: false when the delivery began nothing, and this is how the job stands anyway.
    `owed`: a verdict that could not be written yet, since Postgres is away.
    """

    state: str
    error_class: str | None = None
    error: str | None = None
    owed: tuple[Claimed, Judgement] | None = None
    began: bool = True


@on_blip
def write(job: Claimed, judgement: Judgement, text: str) -> Ran:
    """Do with the job what the verdict says; `text` is for people."""
    verdict, error_class = judgement.verdict, judgement.error_class
    match verdict:
        case Verdict.LOST:
            return Ran("ignored", error_class, text)
        case Verdict.CANCELLED:
            return _finish(job, End(state="cancelled", error_class=error_class, error=text))
        case Verdict.DRAINED:
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
        case Verdict.RACE:
            return _race(job, error_class, text)
        case Verdict.RETRY if error_class == "postgres_unreachable":
            return _wait_for_postgres(job, text)
        case Verdict.RETRY if may_retry(job, error_class):
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


def _wait_for_postgres(job: Claimed, text: str) -> Ran:
    """It answers again: it was away, or did not take a statement. No job fails for that, and no
    attempt is spent; it is the later tried again, the more turns were lost to it."""
    with connection() as conn:
        lost = turns.failed_as(conn, job.id, "postgres_unreachable")
    delay = backoff(1 + min(lost, LONGER))
    wait = Wait(delay=delay, counted=False, error_class="postgres_unreachable", error=text)
    return _wait(job, wait)


def may_retry(job: Claimed, error_class: str) -> bool:
    """Whether the job has an attempt left after a failure of this class, which is recorded."""
    if job.attempts >= settings().attempts:
        return False
    tries = tries_of(error_class, settings().attempts)
    if tries == settings().attempts:
        return True
    with connection() as conn:
        return turns.failed_as(conn, job.id, error_class) < tries


def fails_for_good(job: Claimed, judgement: Judgement) -> bool:
    """Whether the job would end with this failure, though its session may be the reason."""
    if judgement.error_class in ELSEWHERE:
        return False
    match judgement.verdict:
        case Verdict.FAIL:
            return True
        case Verdict.RETRY:
            return not may_retry(job, judgement.error_class)
        case _:
            return False


def _park(job: Claimed, judgement: Judgement, text: str) -> Ran:
    """Set the job aside until its credential may be used again; tell of it once."""
    credential, error_class = identity.credential(), judgement.error_class
    with transaction() as conn:
        until, is_news = limits.impose(
            conn, credential, wait=judgement.wait, until=judgement.until, reason=error_class
        )
        wait = Wait(
            state="parked",
            until=until,
            counted=False,
            credential=credential,
            error_class=error_class,
            error=text,
        )
        told = [_waits(job, wait)]
        if is_news:
            body = {**about(job), "reason": error_class}
            told.append(Event("credential.limited", job.id, body))
        written = _put_back(conn, job, wait, told)
    return _after_wait(job, wait, written)


def _wait(job: Claimed, wait: Wait) -> Ran:
    with connection() as conn:
        written = _put_back(conn, job, wait, [_waits(job, wait)])
    return _after_wait(job, wait, written)


def _race(job: Claimed, error_class: str, text: str) -> Ran:
    """Wait for the ends of the race's jobs: one that came before this was told to nobody."""
    wait = Wait(
        state="parked",
        delay=races.LOOK_AGAIN,
        counted=False,
        error_class=error_class,
        error=text,
    )
    with connection() as conn:
        crash_points.reach("ending.before")
        written = races.wait(conn, job, wait, [_waits(job, wait)])
        crash_points.reach("ending.after")
        races.look_again(conn, job)
    return _after_wait(job, wait, written)


def _waits(job: Claimed, wait: Wait) -> Event:
    kind = "job.parked" if wait.state == "parked" else "job.waits"
    body = {
        **about(job),
        "error_class": wait.error_class,
        "error": wait.error,
        "until": wait.until.isoformat() if wait.until else None,
        "delay": round(wait.delay.total_seconds(), 3),
    }
    if wait.error_class == "check_undecided":
        body["choices"] = checks.choices(job.args)
    return Event(kind, job.id, body)


def _put_back(
    conn: Connection, job: Claimed, wait: Wait, told: list[Event]
) -> list[Written] | None:
    crash_points.reach("ending.before")
    written = endings.put_back(conn, job, wait, told)
    crash_points.reach("ending.after")
    return written


def _after_wait(job: Claimed, wait: Wait, written: list[Written] | None) -> Ran:
    if written is None:  # another attempt has it, or it is to end
        return _finish(job, _wanted_end(job))
    announce(job.project_id, written, [])
    return Ran("waits", wait.error_class, wait.error)


def _wanted_end(job: Claimed) -> End:
    """How an attempt ends that was not let go on: a newer request took its place, or a cancel."""
    with connection() as conn:
        wanted = attempts.wanted(conn, job.id, job.attempt)
    reason = "replaced_by_request" if wanted == "replaced" else "cancelled"
    return End(state="cancelled", error_class=reason, error=STOP_TEXTS[reason])


def _finish(job: Claimed, end: End) -> Ran:
    body = {**about(job), "error_class": end.error_class, "error": end.error}
    told = [Event(f"job.{end.state}", job.id, body)]
    if end.following:
        told.append(queued(job, end.following))
    with connection() as conn:
        crash_points.reach("ending.before")
        written = endings.finish(conn, job, end, told, settings().publish_after)
        crash_points.reach("ending.after")
    if written is None:
        return _as_it_stands(job, Ran("ignored", end.error_class, end.error))
    announce(job.project_id, *written, user_id=job.user_id)
    return Ran(end.state, end.error_class, end.error)


def without_turn(job: Claimed, result: dict[str, Any]) -> None:
    """End the job with a result and the head where it is: a step that was skipped. Raises
    AttemptReplaced."""
    finish_done(
        job, [Event("job.done", job.id, {**about(job), "result": result})], result, None
    )


def finish_done(
    job: Claimed, told: list[Event], result: dict[str, Any], following: Next | None
) -> None:
    """End the job as done, the head where it is, and let its chain go on. `told` has its
    `job.done`. Raises AttemptReplaced."""
    if following:
        told = [*told, queued(job, following)]
    end = End(state="done", result=result, following=following)
    with connection() as conn:
        written = endings.finish(conn, job, end, told, settings().publish_after)
    if written is None:
        raise AttemptReplaced("The job was taken over before it ended.")
    announce(job.project_id, *written, user_id=job.user_id)


def _as_it_stands(job: Claimed, otherwise: Ran) -> Ran:
    """What became of an attempt that there is nothing left to end of: another's it may be, or
    it was ended, or committed, by a statement whose answer was lost."""
    with connection() as conn:
        over = endings.of_attempt(conn, job)
    if over is None:
        return otherwise
    state, error_class, error = over
    return Ran("waits" if state in ("queued", "parked") else state, error_class, error)


def _enough(state: tenacity.RetryCallState) -> bool:
    return drain.draining() or (state.seconds_since_start or 0) > OUTAGE


@tenacity.retry(
    retry=tenacity.retry_if_exception(may_pass),
    wait=PAUSE,
    stop=_enough,
    reraise=True,
)
def tell_of_outage(job: Claimed, judgement: Judgement, text: str) -> Ran:
    """Postgres was away at the end of the hold: this worker did not die of its job.

    As soon as Postgres answers, the verdict is written, if the job is still this attempt's; one
    that was only cut off goes back to the queue. If the job was taken for one that killed its
    worker, that is taken back.
    """
    if judgement.verdict is Verdict.LOST:
        away = "Postgres was away for too long; another attempt goes on with it."
        wait = Wait(counted=False, error_class="postgres_unreachable", error=away)
        ran = _wait(job, wait)
    else:
        ran = write(job, judgement, text)
    with connection() as conn:
        rescue.uncount(conn, job)
    return ran
