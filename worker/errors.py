"""Why a turn or a job did not come to its end, and what is done about it.

    JobError
    ├── BadRequest         the job can never succeed as asked
    ├── AttemptReplaced    another attempt took the job over: nothing of ours counts
    ├── HeadMoved          the head is not the session that we went on from
    ├── NotResumable       a candidate cannot be gone on from; the next is tried
    ├── CaptureIncomplete  the turn ran, but its transcript is not whole in the store
    ├── NotWhole           the turn ended without what it was asked for
    ├── Stopped            the turn was stopped: cancelled, interrupted, timed out
    └── AgentFailed        the agent said why it failed, field by field

`judge` is the one place that turns any of these, or an error of a library, into a
verdict. It looks at fields, never at prose; the table is docs/sessions.md.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

import psycopg
import psycopg_pool
import redis

from db.transcripts import TranscriptDamaged


class JobError(Exception):
    """Something this system says about its own work."""


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


class Stopped(JobError):
    """The turn was stopped from outside; the text is one of the reasons of `worker.lease`."""


@dataclass
class AgentFailed(JobError):
    """What the CLI reported of a failed run.

    `kind` names the failure (`rate_limit`, `server_error`, …), `status` is the HTTP
    status of the model's API, `ending` the CLI's terminal reason, `text` is for people.
    """

    kind: str
    text: str
    status: int | None = None
    ending: str | None = None
    exit_code: int | None = None
    retry_after: timedelta | None = None
    raw_cost_usd: float | None = None  # cumulative, as the CLI gives it

    def __str__(self) -> str:
        return self.text


class Verdict(Enum):
    """What is done about a failure; docs/sessions.md has the table."""

    RETRY = "retry"  # the world's fault: again after a pause, an attempt is spent
    PARK = "park"  # the credential is limited: wait, no attempt is spent
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
    """A verdict with the failure's class for the ledger and, for PARK, how long (None: until cleared)."""

    verdict: Verdict
    error_class: str
    wait: timedelta | None = None


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
    "workspace_missing": Verdict.RETRY,
    "id_in_use": Verdict.RETRY,
    "message_too_large": Verdict.FAIL,
    "start_failed": Verdict.FAIL,
    "killed": Verdict.RETRY,
    "store_failed": Verdict.RETRY,
    "malformed_response": Verdict.RETRY,
    "unreachable": Verdict.RETRY,
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
        case AttemptReplaced():
            return Judgement(Verdict.LOST, "attempt_replaced")
        case NotResumable():
            return Judgement(Verdict.NEXT, str(exc))
        case TranscriptDamaged():
            return Judgement(Verdict.NEXT, "damaged")
        case BadRequest():
            return Judgement(Verdict.FAIL, "bad_request")
        case HeadMoved() | CaptureIncomplete() | NotWhole():
            return Judgement(Verdict.RETRY, _snake(type(exc).__name__))
        case psycopg.OperationalError() | psycopg_pool.PoolTimeout() | psycopg.InterfaceError():
            return Judgement(Verdict.RETRY, "postgres_unreachable")
        case redis.ConnectionError() | TimeoutError():
            return Judgement(Verdict.RETRY, "redis_unreachable")
        case OSError(errno=28):
            return Judgement(Verdict.RETRY, "disk_full")
        case _:
            return Judgement(Verdict.FAIL, "internal_error")


def _judge_agent(failed: AgentFailed, *, resumed: bool) -> Judgement:
    kind = failed.kind
    if kind in UNTIL_CLEARED or failed.status in (401, 403):
        return Judgement(Verdict.PARK, kind)
    if failed.status == 429 or kind == "rate_limit":
        return Judgement(Verdict.PARK, "rate_limit", failed.retry_after or OVERLOAD)
    if failed.ending in ENDINGS:
        return Judgement(ENDINGS[failed.ending], failed.ending)
    if kind in KINDS:
        return Judgement(KINDS[kind], kind)
    if failed.status in (400, 413):
        return Judgement(Verdict.FRESH if resumed else Verdict.FAIL, kind)
    if kind == "server_error" or (failed.status or 0) >= 500:
        return Judgement(
            Verdict.RETRY, "overloaded" if failed.status == 529 else "server_error"
        )
    return Judgement(Verdict.RETRY if resumed else Verdict.FAIL, kind or "unknown")


def blames_session(judgement: Judgement) -> bool:
    """Whether the failure may be the session's own fault, so that it counts against it.

    An outage of the model's API says nothing of a session; docs/decisions/0006.
    """
    return judgement.error_class not in {
        "overloaded",
        "unreachable",
        "postgres_unreachable",
        "redis_unreachable",
        "disk_full",
        "cli_missing",
        "head_moved",
    }


IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
KEYS = re.compile(r"sk-[A-Za-z0-9_-]{6,}")
SENTENCE = 500  # characters


def for_people(exc: BaseException) -> str:
    """The error as one line for people: no session ids, no keys, not endless (R048, R153)."""
    match exc:
        case Stopped():
            text = STOP_TEXTS.get(str(exc), str(exc))
        case JobError():
            text = str(exc) or type(exc).__name__
        case _:
            text = f"{type(exc).__name__}: {exc}"
    line = " ".join(text.replace("\x00", " ").split())
    return KEYS.sub("[secret]", IDS.sub("[id]", line))[:SENTENCE]


STOP_TEXTS = {
    "cancelled": "Cancelled on request.",
    "replaced_by_request": "Stopped for a newer request.",
    "drained": "Its worker was stopped; another goes on with it.",
    "lease_lost": "Its worker lost the job to another.",
    "turn_timeout": "The agent ran longer than BATON_TURN_TIMEOUT allows.",
    "idle_timeout": "The agent said nothing for as long as BATON_IDLE_TIMEOUT allows.",
}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
