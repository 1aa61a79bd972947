"""Commit a whole turn: the head, all that belongs to it, and what follows in the chain.

One statement in Postgres does it all or nothing (db/sessions/commits.py); after it, best effort,
the next job's message and the events' copy go to Redis.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import psycopg
import structlog
from psycopg import Connection

from config.settings import settings
from db.core.events import Event
from db.core.outages import is_away, may_pass
from db.core.pool import connection
from db.jobs.attempts import Claimed
from db.jobs.lanes import Next
from db.sessions import commits
from db.sessions.commits import Advance, Moved
from worker.agent import Turn
from worker.broker.publish import announce
from worker.failures.errors import HeadMoved, Stopped
from worker.failures.retry import while_held
from worker.job import job_events
from worker.job.attempt import Attempt
from worker.job.lease import Lease
from worker.job.successors import following_of
from worker.live import checkpoints
from worker.live.checkpoints import Checkpoint
from worker.process import crash_points, fence
from worker.session import digest
from worker.session.digest import Noted
from worker.session.ladder import AGENT_RESET, Choice
from worker.text.file_names import LeftOut

log = structlog.get_logger()

# A disk may be full where the lease is renewed all the same: then whoever asks for its end has it.
UNWANTED = ("cancelled", "replaced_by_request")
OF_THE_FIRST = ("fresh", "answer", "lost")  # arguments that a job's first turn has heeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a job makes of a turn: the step and source for the ledger, and its results.

    `final`: whether the job ends with it. `said` goes to the chat log as (role, text).
    """

    step: str
    source: str
    reason: str | None = None
    final: bool = True
    result: dict[str, Any] = field(default_factory=dict[str, Any])
    version: str | None = None
    new_version: bool = False
    said: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    tree: str | None = None
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])  # of the tree


def commit(at: Attempt, turn: Turn, outcome: Outcome) -> Moved:
    """Move the head to the turn's session. Raises HeadMoved, with nothing written."""
    job = at.job
    noted = digest.note(at.begun) if at.begun and outcome.tree else None
    to = _advance(job, turn, _named(outcome, at.choice, turn), noted)
    following = following_of(job) if outcome.final else None
    told = job_events.committed(job, to, following, outcome.left_out)
    crash_points.reach("commit.before")
    moved = _send(at, to, told, following)
    if moved is None and (reason := at.lease.reason()) == "lease_lost":
        raise Stopped(reason)
    if moved is None:
        raise HeadMoved("The head moved on, or the job was taken over, while the turn ran.")
    crash_points.reach("commit.after")
    at.pending = None
    at.job = replace(
        job,
        head=turn.session,
        previous_session_id=None,  # a hint of where the job began, and no longer true
        version_id=outcome.version or job.version_id,
        tree=outcome.tree or job.tree,
        fresh_next=False,
        args={name: job.args[name] for name in job.args if name not in OF_THE_FIRST},
    )
    announce(job.project_id, moved.told, moved.messages, user_id=job.user_id)
    return moved


def _send(at: Attempt, to: Advance, told: list[Event], following: Next | None) -> Moved | None:
    """Send the commit. If its answer is lost, the ledger says whether it was done.

    What Postgres refuses for good is raised at once. What it stops is raised after a few tries, and
    the turn is kept: the job's next attempt commits it (turns.NOT_ITS_FAULT).
    """
    job = at.job

    def send(conn: Connection) -> Moved | None:
        pause = settings().publish_after
        return commits.advance(
            conn, job, to, told=told, following=following, publish_after=pause
        )

    def read_before_sending_again() -> Moved | None:
        with connection() as conn:
            done = commits.committed(conn, job, to.minted) or send(conn)
            return done or commits.committed(conn, job, to.minted)  # the first one was slow

    try:
        with connection() as conn:
            return send(conn)
    except psycopg.Error as exc:
        if not may_pass(exc):
            raise
        log.warning("commit.unknown", error=type(exc).__name__)
    try:
        return while_held(partial(_wanted, at.lease))(read_before_sending_again)
    except psycopg.Error as exc:
        if may_pass(exc) and (reason := at.lease.reason()) in UNWANTED:
            raise Stopped(str(reason)) from exc
        if is_away(exc):  # it stayed so: whoever takes over finds the turn
            raise Stopped("lease_lost") from exc
        raise


def _wanted(lease: Lease) -> float:
    """Seconds for which a commit that Postgres does not take now is still to be tried."""
    return 0.0 if lease.reason() in UNWANTED else lease.left()


def _named(outcome: Outcome, choice: Choice | None, turn: Turn) -> Outcome:
    """The transition's source is the operation, unless a fresh session took the head's place."""
    if turn.relation == "reset":
        return replace(outcome, source="fallback", reason=AGENT_RESET)
    if choice and choice.source:
        return replace(outcome, source=choice.source, reason=choice.reason)
    if choice and choice.reason:  # an older session, a template's, or a finished turn
        return replace(outcome, reason=choice.reason)
    return outcome


def _advance(job: Claimed, turn: Turn, outcome: Outcome, noted: Noted | None) -> Advance:
    return Advance(
        step=outcome.step,
        old=job.head,
        new=turn.session,
        parent=turn.parent,
        minted=turn.minted,
        relation=turn.relation,
        source=outcome.source,
        reason=outcome.reason,
        version_id=outcome.version,
        new_version=outcome.new_version,
        tree=outcome.tree,
        files=noted.files if noted else None,
        documentation=noted.documentation if noted else None,
        final=outcome.final,
        result=outcome.result,
        chat=outcome.said,
        chat_plan=job.kind == "chat_plan",
        summary=turn.summary,
        compacted=turn.compacted,
        input_tokens=turn.input_tokens,
        output_tokens=turn.output_tokens,
        cache_read_tokens=turn.cache_read_tokens,
        cache_creation_tokens=turn.cache_creation_tokens,
        context_tokens=turn.context_tokens,
        raw_cost_usd=turn.raw_cost_usd,
        weight=turn.weight,
        duration_ms=turn.duration_ms,
        num_turns=turn.num_turns,
        model=turn.model,
        cli_version=turn.cli_version,
    )


def checkpoint(at: Attempt, turn: Turn, moved: Moved) -> None:
    """Write where the chain has got to into Redis, with the files that its build made."""
    fence.check()
    chain = at.job.chain_id
    files = moved.files_created
    checkpoints.save(chain, Checkpoint(turn.session, str(chain), str(at.cwd), files))
    crash_points.reach("checkpoint.saved")
