"""Why a turn or a job did not come to its end, and what is done about it.

    JobError
    ├── BadRequest         the job can never succeed as asked
    ├── AttemptReplaced    another attempt took the job over: nothing of ours counts
    ├── HeadMoved          the head is not the session that we went on from
    ├── NotResumable       a candidate cannot be gone on from; the next is tried
    ├── CaptureIncomplete  the turn ran, but its transcript is not whole in the store
    ├── NotWhole           the turn ended without what it was asked for
    ├── NoRoom             the agent's disk is full
    ├── WorkspaceFailed    git cannot keep the workspace, and it is not for what lies in it
    ├── WorkspaceTooLarge  more lies in the workspace than it may hold
    ├── WorkspaceBusy      another process does not let go of the workspace's repository
    ├── GitEnded           git was killed, or took too long: that says nothing of the workspace
    ├── WorkspaceAway      the project's files cannot be had on this host now
    │   ├── RemoteMissing  the remote has no repository of the project, or does not show it
    │   └── RemoteRefuses  the remote takes all but some files
    ├── AnswerNeeded       the request wants to be asked before a fresh session begins
    ├── CheckFailed        the version does not pass its check, and is not to be mended any more
    ├── CheckUndecided     the same, and a person is to say what becomes of it
    ├── Racing             the job waits for its race on branches
    ├── RaceFailed         none of the race came to a version
    ├── NotPromoted        what won the race could not take the main line's place
    ├── Stopped            the turn was stopped: cancelled, replaced, drained, timed out
    └── AgentFailed        the agent said why it failed, field by field

`judge` is the one place that turns any of these, or an error of a library, into a
verdict. It looks at fields, never at prose; the table is docs/errors.md.
"""

import errno
from dataclasses import dataclass
from datetime import datetime, timedelta

from db.core.outages import is_away, is_stopped
from db.core.refusals import is_refused
from db.transcripts.transcripts import TranscriptDamaged
from worker.failures.verdicts import AGENT, STOPS, Verdict
from worker.failures.vocabulary import class_of


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
    """Git cannot keep the workspace; the text says why. What lies in it is no reason: what cannot
    be kept of it is left out."""


class WorkspaceTooLarge(JobError):
    """More lies in the workspace than it may hold; the text says what there is too much of."""


class WorkspaceBusy(JobError):
    """Another process does not let go of the workspace's repository; the text says which."""


class GitEnded(JobError):
    """Git was killed, or took too long: what it was to do is not done."""


class WorkspaceAway(JobError):
    """The project's files cannot be fetched, or not be sent on; the text says why."""


class RemoteMissing(WorkspaceAway):
    """Where the project's repository should be there is none, or it is not shown to us."""


@dataclass
class RemoteRefuses(WorkspaceAway):
    """The project's repository takes no commit that has these objects (ids); `text` says why."""

    text: str
    objects: frozenset[str]

    def __str__(self) -> str:
        return self.text


class BudgetSpent(JobError):
    """Nothing is left of a budget that the turn would be paid from; the text says of which."""


class NoRoom(JobError):
    """The disk that the agent writes its transcript to is full."""


class AnswerNeeded(JobError):
    """The session is lost, and the request said `on_lost=ask`; the text is the reason's code."""


class CheckFailed(JobError):
    """The version that the job made does not pass its check; the text says how and what became
    of it."""


class CheckUndecided(JobError):
    """As CheckFailed, and the request said `on_check_failed=ask`."""


class Stopped(JobError):
    """The turn was stopped from outside; the text is one of the reasons of `worker.job.lease`."""


class Racing(JobError):
    """The job waits until one of its race has ended."""


class RaceFailed(JobError):
    """None of the race came to a version."""


class NotPromoted(JobError):
    """The head was moved while the race was run, and what has won is kept as a branch; or that was
    dropped. The text says which."""


@dataclass
class AgentFailed(JobError):
    """What the CLI reported of a failed run.

    `kind` names the failure (`rate_limit`, `server_error`, …), `status` is the HTTP
    status of the model's API, `ending` the CLI's terminal reason, `cause` its name for the
    API's error (worker/failures/vocabulary.py has them all), `text` is for people.
    A limit ends `retry_after` from now, or at the moment `limit_ends_at`. `outage`: what kept the
    CLI from shortening a conversation that was too long for that.
    """

    kind: str
    text: str
    status: int | None = None
    ending: str | None = None
    cause: str | None = None
    exit_code: int | None = None
    outage: "AgentFailed | None" = None
    retry_after: timedelta | None = None
    limit_ends_at: datetime | None = None

    def __str__(self) -> str:
        return self.text


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


OVERLOAD = timedelta(seconds=60)  # parked after a 429 that names no time
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
NOT_WRITABLE = {errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
EXHAUSTED = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
OWN: dict[type[JobError], tuple[Verdict, str]] = {
    BadRequest: (Verdict.FAIL, "bad_request"),
    AttemptReplaced: (Verdict.LOST, "attempt_replaced"),
    WorkspaceFailed: (Verdict.RETRY, "workspace_failed"),
    WorkspaceTooLarge: (Verdict.FAIL, "workspace_too_large"),
    WorkspaceBusy: (Verdict.WAIT, "workspace_busy"),
    GitEnded: (Verdict.RETRY, "git_ended"),
    WorkspaceAway: (Verdict.WAIT, "workspace_away"),
    BudgetSpent: (Verdict.FAIL, "budget_spent"),
    NoRoom: (Verdict.RETRY, "disk_full"),
    AnswerNeeded: (Verdict.ASK, "ask"),
    CheckFailed: (Verdict.FAIL, "check_failed"),
    CheckUndecided: (Verdict.ASK, "check_undecided"),
    Racing: (Verdict.RACE, "racing"),
    RaceFailed: (Verdict.FAIL, "race_failed"),
    NotPromoted: (Verdict.FAIL, "not_promoted"),
    HeadMoved: (Verdict.RETRY, "head_moved"),
    CaptureIncomplete: (Verdict.RETRY, "capture_incomplete"),
    NotWhole: (Verdict.RETRY, "not_whole"),
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
        case _ if is_away(exc):
            return Judgement(Verdict.RETRY, "postgres_unreachable")
        case _ if is_stopped(exc):
            return Judgement(Verdict.RETRY, "statement_stopped")
        case _ if is_refused(exc):
            return Judgement(Verdict.FAIL, "refused_by_postgres")
        case _ if _redis_away(exc):
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


def _redis_away(exc: BaseException) -> bool:
    import redis  # slow to import, and no command of `baton` needs the verdict

    return isinstance(exc, (redis.ConnectionError, redis.TimeoutError))


def _exhausted(exc: MemoryError | OSError) -> bool:
    return isinstance(exc, MemoryError) or exc.errno in EXHAUSTED


def _judge_agent(failed: AgentFailed, *, resumed: bool) -> Judgement:
    if failed.outage and not resumed:  # a resumed one is compacted, and that tells the same
        return _judge_agent(failed.outage, resumed=False)
    word = class_of(failed.kind, status=failed.status, ending=failed.ending, cause=failed.cause)
    if word not in AGENT:
        verdict = Verdict.RETRY if resumed else Verdict.FAIL
        return Judgement(verdict, word, known=False)
    verdict = AGENT[word][resumed]
    if word == "rate_limit":
        wait = failed.retry_after or OVERLOAD
        return Judgement(verdict, word, wait, until=failed.limit_ends_at)
    return Judgement(verdict, word)
