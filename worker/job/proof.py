"""A build that proves itself: its check is run after the turn, and what fails goes back to the
session that made it.

    turn, committed ──► check ── passes ──────────────────────────► the job is done
         ▲                │ fails
         └── repair ◄─────┴── no more tries, nothing new, no budget ──► keep, rewind or ask

Each arrow begins with something written down: a step that was committed is not run again, and
neither is a command that came to an end. docs/decisions/0030 says why the commit comes first.
"""

from config.settings import settings
from db.core.events import Event
from db.core.pool import connection
from db.jobs import checks
from db.jobs.checks import Result, Stand
from db.jobs.lanes import MAIN
from db.projects import projects
from db.projects.heads import HeadHeld
from worker.broker.publish import announce
from worker.checks import command
from worker.checks.command import Hold
from worker.checks.sentences import ending, sentence
from worker.failures.errors import AttemptReplaced, BadRequest, CheckFailed, CheckUndecided
from worker.failures.retry import on_blip
from worker.job import endings, files, job_events, racer
from worker.job.attempt import Attempt
from worker.job.commit import Outcome
from worker.job.legs import Work
from worker.job.step import Step
from worker.job.successors import following_of
from worker.process import crash_points
from worker.session import prompts
from worker.workspace import workspace

REASON = "check_failed"  # of the move of the head
NAMED = 20  # files in an event or a result


def commands(at: Attempt) -> list[str]:
    """What the job's version has to pass: the request's, else the project's, else everybody's."""
    given = at.job.args.get("check")
    if given is None:
        given = at.job.project_check
    if given is None:
        given = settings().check
    return [given] if isinstance(given, str) and given else list(given)


def prove(at: Attempt, asked: list[str], *, here: bool) -> None:
    """Check what the job's turn has made, let it be mended, and end the job. `here`: this attempt
    has committed the turn; else it goes on where another was.

    Raises CheckFailed or CheckUndecided.
    """
    stand = _stand(at)
    if not here:
        _find_place(at, stand)
    while failed := _check(at, stand, asked):
        stand = _stand(at)
        if (why := _enough(at, stand, failed)) is not None:
            raise _unproven(at, stand, failed, why)
        at.lease.check_time()
        _repair(at, stand, failed)
        stand = _stand(at)
    _settle(at, checked=bool(asked))


def _stand(at: Attempt) -> Stand:
    with connection() as conn:
        return checks.stand(conn, at.job)


def _find_place(at: Attempt, stand: Stand) -> None:
    """The head must be what the job left; what a check that broke off left is cleared away."""
    failed = stand.failed_in(stand.repairs)
    if failed and at.job.head == stand.before:
        raise CheckFailed(sentence(failed, "", TAKEN_BACK))
    if at.job.head != stand.newest:
        raise BadRequest(
            "The project's session was moved while its version was checked: ask again."
        )
    if at.left is None and at.job.tree:
        workspace.after_check(at.job, at.cwd, at.job.tree)


def _check(at: Attempt, stand: Stand, asked: list[str]) -> Result | None:
    """One round of the commands, but for those that came to an end already; the one that failed."""
    done = {one.number: one for one in stand.of_round(stand.repairs)}
    for number, line in enumerate(asked, start=1):
        if number not in done:
            at.lease.check_time()
        found = done.get(number) or _run(at, stand.repairs, number, line)
        if number not in done:
            _record(at, found, last=number == len(asked))
        if not found.passed:
            return found
    return None


def _run(at: Attempt, round_: int, number: int, line: str) -> Result:
    lease = at.lease
    lease.excuse()
    crash_points.reach("check.before")
    hold = Hold(lease.turn, lease.alive, lease.reason, at.job.attempt)
    try:
        ended = command.run(line, at.cwd, hold)
        crash_points.reach("check.ended")
    finally:  # a job that ends here, by a cancel or a fault, leaves nothing to the next version
        changed = workspace.after_check(at.job, at.cwd, at.job.tree) if at.job.tree else []
    return Result(
        round=round_,
        number=number,
        command=line,
        outcome="passed" if ended.passed else "failed",
        exit_status=ended.exit_status,
        signal=ended.signal,
        reason=ended.reason,
        duration_ms=ended.duration_ms,
        output_head=ended.head,
        output_tail=ended.tail,
        output_bytes=ended.output_bytes,
        failure=ended.failure,
        tree=at.job.tree,
        changed=changed[:NAMED],
    )


def _record(at: Attempt, found: Result, *, last: bool) -> None:
    status = "failing" if not found.passed else "passing" if last else None
    told = job_events.checked(at.job, found)

    @on_blip
    def record() -> None:
        with connection() as conn:
            written = checks.record(conn, at.job, found, told, status=status)
        if written is None:
            raise AttemptReplaced("The job was taken over while its version was checked.")
        announce(at.job.project_id, written, [])

    record()
    crash_points.reach("check.recorded")


def _enough(at: Attempt, stand: Stand, failed: Result) -> str | None:
    """Why it is not to be mended once more, as the end of a sentence; None: it is."""
    done = stand.repairs
    if "check_answer" in at.job.args:
        return ""
    if at.job.args.get("repair_at") == done:
        return None  # a person asked for it
    if done >= _tries(at):
        return f"after {done} repair{'' if done == 1 else 's'}" if done else "and is not mended"
    before = stand.failed_in(done - 1) if done else None
    if before and before.failure == failed.failure:
        return "and a repair has changed nothing about it"
    left = _budget_left(at, stand)
    return "and the budget is used up" if left is not None and left <= 0 else None


def _tries(at: Attempt) -> int:
    return int(at.job.args.get("check_tries", settings().check_tries))


def _budget_left(at: Attempt, stand: Stand) -> float | None:
    """What of the request's budget the job has not used, in USD; None: there is no limit."""
    budget = at.job.args.get("budget") or settings().budget_usd
    return None if budget is None else float(budget) - float(stand.spent_usd)


def _repair(at: Attempt, stand: Stand, failed: Result) -> None:
    """A turn of its own on the session that made the files: it is told what the check found."""
    number = stand.repairs + 1
    work = Work(at)
    step = Step(
        name=f"repair:{number}",
        prompt=prompts.check_failed(
            failed.command, ending(failed), failed.output_head, failed.output_tail
        ),
        budget=_budget_left(at, stand),
    )
    turn = work.run(step)
    made = work.take_in()
    before = stand.result.get("files_created", [])
    created = list(dict.fromkeys([*before, *made.created]))
    work.commit(
        turn,
        Outcome(
            step=step.name,
            source="recovery",
            reason=REASON,
            final=False,
            version=at.job.version_id if at.job.lane == MAIN else None,
            said=[("assistant", turn.text)],
            result={
                "text": turn.text,
                "files_created": created,
                "files_created_count": stand.result.get("files_created_count", len(before))
                + made.created_count,
            },
        ),
    )


def _settle(at: Attempt, *, checked: bool) -> None:
    """The version is good: the job is done, and the chain goes on. Raises AttemptReplaced."""
    job, stand = at.job, _stand(at)
    checks_told = {"status": "passing" if checked else "unchecked", "repairs": stand.repairs}
    result = {"check": checks_told} | racer.change_of(at)
    body = {**job_events.about(job), "result": stand.result | result}
    crash_points.reach("check.settled")
    endings.finish_done(job, [Event("job.done", job.id, body)], result, following_of(job))


KEPT = "Its version stands as failing."
TAKEN_BACK = "Session and files are as they were before the request."


def policy(at: Attempt) -> str:
    """What is to become of a version that fails for good: keep, rewind or ask."""
    return at.job.args.get("on_check_failed") or settings().on_check_failed


def _unproven(at: Attempt, stand: Stand, failed: Result, why: str) -> Exception:
    """What the job ends with, or waits for; where that is asked for, what it did is taken back."""
    then = at.job.args.get("check_answer") or policy(at)
    if then == "ask":
        return CheckUndecided(sentence(failed, why, "Answer keep, rewind or repair."))
    what = KEPT
    if then == "rewind":
        what = (
            TAKEN_BACK if _take_back(at, stand) else f"There is nothing to go back to: {KEPT}"
        )
    return CheckFailed(sentence(failed, why, what))


def _take_back(at: Attempt, stand: Stand) -> bool:
    """Session and files go back to before the request; whether there was something before it."""
    if stand.before is None or at.job.lane != MAIN:
        return False
    try:
        with connection() as conn:
            tree = projects.take_back(conn, at.job, stand.before)
    except HeadHeld:
        return False
    crash_points.reach("check.taken_back")
    at.go_to(stand.before, tree)
    files.provide(at)
    return True
