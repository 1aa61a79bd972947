"""One turn of a job: on the best session there is, and on the next best where that fails.

    what a dead attempt left, else the ladder's choice ──► record the try ──► turn ──► whole
                         ▲                                                     │
                         └─ next candidate, compacted, or fresh (fallback.py) ─┘ failed

No transaction is open while the model thinks. A failed turn leaves the head where it was; a retry
is a new fork of the last good session under a new id.
"""

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import structlog

from config.settings import settings
from db.core.outages import may_pass
from db.core.pool import connection
from db.sessions import registry, tokens, turns
from db.sessions.budgets import counting
from worker.agent import Request, Turn, Watch
from worker.agent.store import JobStore
from worker.failures.errors import (
    AnswerNeeded,
    AttemptReplaced,
    CaptureIncomplete,
    JobError,
    Judgement,
    NoRoom,
    NotResumable,
    Stopped,
    Verdict,
    judge,
)
from worker.job import budgets, files, job_events
from worker.job.attempt import Attempt
from worker.job.commit import Outcome, commit
from worker.job.compaction import in_vain, not_compacted
from worker.job.endings import fails_for_good
from worker.job.fallback import Then, decide, or_give_up
from worker.job.step import Step
from worker.live import progress
from worker.process import crash_points
from worker.sandbox.box import box
from worker.sandbox.home import own_directory
from worker.sandbox.leash import cli
from worker.session import cached, digest, ladder, notes, prompts, recovery
from worker.session.cheapest import Way
from worker.session.ladder import Choice
from worker.session.recovery import Left

log = structlog.get_logger()


def run_turn(at: Attempt, step: Step) -> Turn:
    """Run one turn on the best session there is. Raises what the last candidate raised."""
    if step.mode != "compact":
        at.fresh, at.compacted = None, False
    left = _take_left(at, step)
    if left and (turn := recovery.finished(left, structured=step.schema is not None)):
        at.tell(job_events.recovered(at.job, left, "finished", left.why))
        at.choice = recovery.as_begun(left.begun)
        at.pending = turn
        return turn
    choice = _go_on(at, left) if left else _choose(at, step)
    while True:
        at.choice = choice
        request = _begin(at, step, choice)
        turn = None
        try:
            turn = _spawn(at, step, request, choice)
            turn = _checked(at, turn, choice)
            step.accept(turn)
        except Exception as exc:
            judgement = judge(exc, resumed=choice.parent is not None)
            _record_failure(at, request, judgement, turn or exc)
            if not _goes_on(at, step, choice, judgement):
                raise
        else:
            at.pending = turn
            return turn
        choice = _choose(at, step)


def _take_left(at: Attempt, step: Step) -> Left | None:
    """What the attempt before left of this very step, if it is of use."""
    left, at.left = at.left, None
    if left is None:
        return None
    lost = left.lost or (None if left.begun.step == step.name else "other_step")
    if lost:
        at.tell(job_events.recovered(at.job, left, "lost", lost))
    return None if lost else left


def _go_on(at: Attempt, left: Left) -> Choice:
    with connection() as conn:
        choice = recovery.go_on(conn, at.job, left)
    at.tell(job_events.recovered(at.job, left, "partial", left.why))
    return choice


def _choose(at: Attempt, step: Step) -> Choice:
    """The ladder's choice, unless this step cannot go on with it."""
    with connection() as conn:
        choice = ladder.choose(
            conn,
            at.job,
            barred=at.barred,
            fresh=at.fresh,
            ways=_ways(at, step),
            restructured=at.begun.restructured if at.begun else 0.0,
        )
    if choice.weighed:
        at.tell(job_events.weighed(at.job, choice.weighed))
        if choice.weighed.way == "compact":
            _compact(at, reason=choice.weighed.why)
            return _choose(at, step)
    refused: JobError | None = None
    if step.mode == "compact" and choice.parent != at.job.head:
        refused = NotResumable(choice.reason or "no_session")
    elif choice.lost_head:
        _tell_lost(at, choice.reason)
        if ladder.wants_to_be_asked(at.job):
            refused = AnswerNeeded(choice.reason)
    if refused:
        with connection() as conn:
            turns.note_rejected(conn, at.job, step=step.name, tries=choice.tries)
        raise refused
    return choice


def _ways(at: Attempt, step: Step) -> tuple[Way, ...]:
    """How a head of too many turns may be gone on from: it is compacted once at the most."""
    if step.mode == "compact":
        return ()
    return ("fresh",) if at.compacted or settings().compact == "never" else ("compact", "fresh")


def _begin(at: Attempt, step: Step, choice: Choice) -> Request:
    """Record the turn and every candidate that was looked at for it, before the prompt is sent."""
    minted, token = uuid4(), tokens.fresh()
    at.lease.excuse()
    if reason := at.lease.reason():
        raise Stopped(reason)
    with connection() as conn, counting(conn):
        budget = budgets.for_a_turn(conn, at.job, step.budget)
        if not turns.begin(
            conn,
            at.job,
            step=step.name,
            parent=choice.parent,
            minted=str(minted),
            tries=choice.tries,
            source=choice.source,
            reason=choice.reason,
            token=token,
            budget_usd=budget,
        ):
            raise AttemptReplaced("The job was taken over before the turn began.")
    crash_points.reach("turn.recorded")
    return Request(
        prompt=_prompt(at, step, choice),
        minted=minted,
        resume=choice.parent,
        cwd=at.cwd,
        mode=step.mode,
        schema=step.schema,
        enforced=step.enforced,
        hour=cached.for_an_hour(choice),
        model=at.job.args.get("model") or step.model,
        max_turns=at.job.args.get("max_turns"),
        budget_usd=budget,
        attempt=at.job.attempt,
        token=token,
    )


def _prompt(at: Attempt, step: Step, choice: Choice) -> str:
    if step.mode == "compact":
        return step.prompt
    if choice.source == ladder.RECOVERY:
        prompt = prompts.go_on(step.prompt)
    elif choice.parent:
        prompt = step.prompt
    else:
        prompt = digest.retell(at.job, at.cwd, step.prompt)
    return notes.before(prompt, at.cwd, choice.entries)


def _spawn(at: Attempt, step: Step, request: Request, choice: Choice) -> Turn:
    store = JobStore(
        at.job.project_id,
        job_id=at.job.id,
        attempt=at.job.attempt,
        parent=(choice.parent, choice.entries) if choice.parent else None,
        template=choice.template,
    )
    saw = progress.of_step(at.job, step.name)
    saw(progress.BEGAN, {"resumes": request.resume is not None})
    own = own_directory(request.minted)
    around = box(at.cwd, own=own, cli=Path(cli()), writable=step.mode == "work")
    try:
        with at.lease.turn(around) as leash:
            watch = Watch(
                saw=saw,
                alive=at.lease.alive,
                stopped=at.lease.reason,
                end=leash.end,
                keeper_env=leash.environ,
            )
            turn = at.agent(request, store=store, watch=watch)
    except BaseException:
        progress.note_silence(at.job.id, None)
        raise
    saw(progress.ENDED, {"tokens": turn.context_tokens})
    return turn


def _checked(at: Attempt, turn: Turn, choice: Choice) -> Turn:
    """A head must never name a session that cannot be loaded on an empty machine."""
    with connection() as conn:
        strange = turn.session not in (turn.minted, turn.parent)
        if strange and registry.get(conn, turn.session):
            raise _incomplete("The agent named a session that it was not given.", turn)
        found = ladder.look(conn, at.job.project_id, turn.session)
    if found.reason:
        raise _incomplete(f"The new session does not load: {found.reason}.", turn)
    if turn.compacted:
        return replace(turn, summary=found.summary)
    if choice.parent and not ladder.shares(choice.entries, found.entries):
        log.warning("session.reset_by_agent")
        _tell_lost(at, ladder.AGENT_RESET)
        return replace(turn, relation="reset", parent=None)
    return turn


def _incomplete(text: str, turn: Turn) -> JobError:
    return NoRoom(text) if turn.no_room else CaptureIncomplete(text)


def _record_failure(
    at: Attempt, request: Request, judgement: Judgement, told: Turn | Exception
) -> None:
    """`told`: the turn, where it went to its end and is of no use; it was paid for all the same."""
    log.warning(
        "turn.failed", error_class=judgement.error_class, verdict=judgement.verdict.value
    )
    if judgement.verdict is Verdict.LOST:
        return  # it is another's by now: whoever takes it over looks at what is there
    known = told if isinstance(told, (Turn, JobError)) else JobError()
    try:
        with connection() as conn:
            turns.fail(
                conn,
                at.job,
                minted=str(request.minted),
                error_class=judgement.error_class,
                raw_cost_usd=known.raw_cost_usd,
                weight=known.weight,
                cli_version=known.cli_version,
            )
    except psycopg.Error as exc:
        if not may_pass(exc):
            raise


def _goes_on(at: Attempt, step: Step, choice: Choice, judgement: Judgement) -> bool:
    """Do what was decided about a failed turn. Whether the turn is to be tried again now."""
    then = decide(at, choice, judgement, compacts=step.mode == "compact")
    if then is Then.COMPACT and not _compact(at, reason=judgement.error_class):
        then = or_give_up(at)
    match then:
        case Then.NEXT | Then.GO_BACK:
            at.barred[str(choice.parent)] = judgement.error_class
        case Then.FRESH:
            at.fresh = judgement.error_class
        case _:
            pass
    if then is Then.GO_BACK:
        files.go_back(at)
    return then is not Then.GIVE_UP


def _compact(at: Attempt, *, reason: str) -> bool:
    """Compact the head, as a committed turn of its own; whether the head is smaller now."""
    at.compacted = True
    step = Step(name=f"compact:{uuid4().hex[:8]}", prompt="/compact", mode="compact")
    try:
        turn = run_turn(at, step)
    except NotResumable:
        return False
    except JobError as exc:
        judgement = judge(exc, resumed=True)
        if in_vain(judgement) or fails_for_good(at.job, judgement):
            return False  # a fresh session is left
        raise
    if why := not_compacted(turn):
        discard(at, why)
        return False
    commit(at, turn, Outcome(step=step.name, source="compact", reason=reason, final=False))
    return True


def _tell_lost(at: Attempt, reason: str | None) -> None:
    """People are told once an attempt that the session is lost."""
    if not at.told_lost:
        at.told_lost = True
        at.tell(job_events.resume_failed(at.job, reason))


def discard(at: Attempt, why: str) -> None:
    """Keep the turn that is pending, if one is, out of the chain: the head stays."""
    turn, at.pending = at.pending, None
    if turn is None:
        return
    with connection() as conn:
        if at.choice and at.choice.finished:
            turns.give_up(conn, at.job, minted=turn.minted, error_class=why)
            return
        cost = turn.raw_cost_usd
        turns.fail(conn, at.job, minted=turn.minted, error_class=why, raw_cost_usd=cost)
