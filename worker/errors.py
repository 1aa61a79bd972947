"""Why a turn or a job did not come to its end, and what is done about it.

    JobError
    ├── BadRequest         the job can never succeed as asked
    ├── AttemptReplaced    another attempt took the job over: nothing of ours counts
    ├── HeadMoved          the head is not the session that we went on from
    ├── NotResumable       a candidate cannot be gone on from; the next is tried
    ├── CaptureIncomplete  the turn ran, but its transcript is not whole in the store
    ├── NotWhole           the turn ended without what it was asked for
    ├── NoRoom             the agent's disk is full
    ├── WorkspaceFailed    the workspace cannot be kept as it is
    ├── GitEnded           git was killed, or took too long: that says nothing of the workspace
    ├── WorkspaceAway      the project's files cannot be had on this host now
    │   └── RemoteMissing  the remote has no repository of the project, or does not show it
    ├── AnswerNeeded       the request wants to be asked before a fresh session begins
    ├── Stopped            the turn was stopped: cancelled, interrupted, timed out
    └── AgentFailed        the agent said why it failed, field by field

`judge` is the one place that turns any of these, or an error of a library, into a
verdict. It looks at fields, never at prose; the table is docs/sessions.md.
"""

import errno
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

import redis

from db.pool import AWAY
from db.refusals import FOR_GOOD
from db.transcripts import TranscriptDamaged


class JobError(Exception):
    """Something this system says about its own work.

    If a run of the agent failed with it: `raw_cost_usd` is the CLI's cumulative figure, if
    it gave one, and `weight` else what was seen of its use, in tokens of plain input;
    `cli_version` is which CLI it was, if that was heard.
    """

    raw_cost_usd: float | None = None
    weight: float = 0.0
    cli_version: str | None = None


class BadRequest(JobError):
    """The job can never succeed as asked."""


class AttemptReplaced(JobError):
    """Another attempt took the job over."""


class HeadMoved(JobError):
    """The head is no longer the session that this turn went on from."""


class NotResumable(JobError):
    """The session cannot be resumed; the text is the reason's code."""


class CaptureIncomplete(JobError):
    """The turn's transcript is not whole in the store."""


class NotWhole(JobError):
    """The turn ended without what it was asked for."""


class WorkspaceFailed(JobError):
    """The workspace cannot be kept as it is; the text says why."""


class GitEnded(JobError):
    """Git was killed, or took too long: what it was to do is not done."""


class WorkspaceAway(JobError):
    """The project's files cannot be fetched, or not be sent on; the text says why."""


class RemoteMissing(WorkspaceAway):
    """Where the project's repository should be there is none, or it is not shown to us."""


class NoRoom(JobError):
    """The disk that the agent writes its transcript to is full."""


class AnswerNeeded(JobError):
    """The session is lost, and the request said `on_lost=ask`; the text is the reason's code."""


class Stopped(JobError):
    """The turn was stopped from outside; the text is one of the reasons of `worker.lease`."""


@dataclass
class AgentFailed(JobError):
    """What the CLI reported of a failed run.

    `kind` names the failure (`rate_limit`, `server_error`, …), `status` is the HTTP
    status of the model's API, `ending` the CLI's terminal reason, `text` is for people.
    A limit ends `retry_after` from now, or at the moment `resets_at`.
    """

    kind: str
    text: str
    status: int | None = None
    ending: str | None = None
    exit_code: int | None = None
    retry_after: timedelta | None = None
    resets_at: datetime | None = None

    def __str__(self) -> str:
        return self.text


class Verdict(Enum):
    """What is done about a failure; docs/sessions.md has the table."""

    RETRY = "retry"  # the world's fault: again after a pause, an attempt is spent
    PARK = "park"  # the credential is limited: wait, no attempt is spent
    ASK = "ask"  # people choose between another try and a fresh session
    WAIT = "wait"  # this worker cannot work now: back to the queue, no attempt is spent
    COMPACT = "compact"  # the context is too long: compact the parent, then once more
    NEXT = "next"  # this session cannot be resumed: the next candidate
    FRESH = "fresh"  # resumed in vain: once more in a fresh session
    FAIL = "fail"  # trying again would only repeat it
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"  # a deploy: back to the queue, no attempt is spent
    LOST = "lost"  # the attempt was replaced: write nothing


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with the failure's class for the ledger and, for PARK, how long (None: until
    cleared), or until when: only Postgres' clock says how far off that is. `known`: whether
    the table has the failure, or this is the catch-all."""

    verdict: Verdict
    error_class: str
    wait: timedelta | None = None
    known: bool = True
    until: datetime | None = None


UNTIL_CLEARED = {"authentication_failed", "billing_error"}
OVERLOAD = timedelta(seconds=60)  # parked after a 429 that names no time
ENDINGS = {
    "max_turns": Verdict.FAIL,
    "budget_exhausted": Verdict.FAIL,
    "blocking_limit": Verdict.FAIL,
    "prompt_too_long": Verdict.COMPACT,
    "structured_output_retry_exhausted": Verdict.RETRY,
}
KINDS = {
    "session_unknown": Verdict.NEXT,
    "model_not_found": Verdict.FAIL,
    "cli_missing": Verdict.WAIT,
    "agent_home_unwritable": Verdict.WAIT,
    "workspace_missing": Verdict.RETRY,
    "unanswered": Verdict.RETRY,
    "id_in_use": Verdict.RETRY,
    "message_too_large": Verdict.FAIL,
    "start_failed": Verdict.FAIL,
    "killed": Verdict.RETRY,
    "store_failed": Verdict.RETRY,
    "malformed_response": Verdict.RETRY,
    "unreachable": Verdict.RETRY,
}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
NOT_WRITABLE = {errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
EXHAUSTED = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
REFUSED = {400: "request_refused", 413: "request_too_large"}
OWN: dict[type[JobError], tuple[Verdict, str]] = {
    BadRequest: (Verdict.FAIL, "bad_request"),
    AttemptReplaced: (Verdict.LOST, "attempt_replaced"),
    WorkspaceFailed: (Verdict.FAIL, "workspace_failed"),
    GitEnded: (Verdict.RETRY, "git_ended"),
    WorkspaceAway: (Verdict.WAIT, "workspace_away"),
    NoRoom: (Verdict.RETRY, "disk_full"),
    AnswerNeeded: (Verdict.ASK, "ask"),
    HeadMoved: (Verdict.RETRY, "head_moved"),
    CaptureIncomplete: (Verdict.RETRY, "capture_incomplete"),
    NotWhole: (Verdict.RETRY, "not_whole"),
}
# How often a job is tried in all when it fails like this; others: BATON_ATTEMPTS.
TRIES = {"structured_output_retry_exhausted": 2, "workspace_missing": 2}
# Failures that may be the session's own fault: the second from one parent counts against
# it (docs/decisions/0006).
BLAMED = {
    "server_error",
    "malformed_response",
    "killed",
    "store_failed",
    "turn_timeout",
    "idle_timeout",
}
STOPS = {
    "cancelled": Verdict.CANCELLED,
    "replaced_by_request": Verdict.CANCELLED,
    "drained": Verdict.INTERRUPTED,
    "lease_lost": Verdict.LOST,
    "turn_timeout": Verdict.RETRY,
    "idle_timeout": Verdict.RETRY,
}


def judge(exc: BaseException, *, resumed: bool) -> Judgement:
    """What to do about `exc`, raised by a turn that did or did not resume a session."""
    match exc:
        case AgentFailed():
            return _judge_agent(exc, resumed=resumed)
        case Stopped():
            return Judgement(STOPS.get(str(exc), Verdict.RETRY), str(exc))
        case NotResumable():
            return Judgement(Verdict.NEXT, str(exc))
        case JobError():
            known = (OWN[kind] for kind in type(exc).__mro__ if kind in OWN)
            return Judgement(*next(known, (Verdict.FAIL, "internal_error")))
        case _:
            return _judge_library(exc)


def _judge_library(exc: BaseException) -> Judgement:
    match exc:
        case TranscriptDamaged():
            return Judgement(Verdict.NEXT, "damaged")
        case _ if isinstance(exc, AWAY):
            return Judgement(Verdict.RETRY, "postgres_unreachable")
        case _ if isinstance(exc, FOR_GOOD):
            return Judgement(Verdict.FAIL, "refused_by_postgres")
        case redis.ConnectionError() | redis.TimeoutError():
            return Judgement(Verdict.RETRY, "redis_unreachable")
        case OSError() if exc.errno in DISK_FULL:
            return Judgement(Verdict.RETRY, "disk_full")
        case OSError() if exc.errno in NOT_WRITABLE:
            return Judgement(Verdict.RETRY, "not_writable")
        case MemoryError() | OSError() if _exhausted(exc):
            return Judgement(Verdict.RETRY, "host_exhausted")
        case OSError():
            return Judgement(Verdict.RETRY, "host_failed")
        case _:
            return Judgement(Verdict.FAIL, "internal_error")


def _exhausted(exc: MemoryError | OSError) -> bool:
    return isinstance(exc, MemoryError) or exc.errno in EXHAUSTED


def _judge_agent(failed: AgentFailed, *, resumed: bool) -> Judgement:
    kind = failed.kind
    if kind in UNTIL_CLEARED or failed.status in (401, 403):
        return Judgement(Verdict.PARK, kind)
    if failed.status == 429 or kind == "rate_limit":
        wait = failed.retry_after or OVERLOAD
        return Judgement(Verdict.PARK, "rate_limit", wait, until=failed.resets_at)
    if failed.ending in ENDINGS:
        return Judgement(ENDINGS[failed.ending], failed.ending)
    if kind in KINDS:
        return Judgement(KINDS[kind], kind)
    if failed.status in REFUSED:
        return Judgement(Verdict.FRESH if resumed else Verdict.FAIL, REFUSED[failed.status])
    if failed.status == 529:
        return Judgement(Verdict.RETRY, "overloaded")
    if kind == "server_error" or (failed.status or 0) >= 500:
        return Judgement(Verdict.RETRY, "server_error")
    verdict = Verdict.RETRY if resumed else Verdict.FAIL
    return Judgement(verdict, kind or "unknown", known=False)


def tries_of(error_class: str, attempts: int) -> int:
    """How many attempts a job gets that fails like this, of `attempts` in general."""
    return min(attempts, TRIES.get(error_class, attempts))
