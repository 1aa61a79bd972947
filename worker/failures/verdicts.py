"""What is done about each way in which a turn can fail, by its error class.

The classes of the agent's failures are those of worker/failures/vocabulary.py, and what this system
finds out by itself. docs/errors.md has the whole table, docs/decisions/0006 what counts
against a session.
"""

from enum import Enum


class Verdict(Enum):
    """What is done about a failure; docs/errors.md has the table."""

    RETRY = "retry"  # the world's fault: again after a pause, an attempt is spent
    PARK = "park"  # the credential is limited: wait, no attempt is spent
    ASK = "ask"  # people choose between another try and a fresh session
    RACE = "race"  # wait until one of its race has ended, no attempt is spent
    WAIT = "wait"  # this worker cannot work now: back to the queue, no attempt is spent
    COMPACT = "compact"  # the context is too long: compact the parent, then once more
    NEXT = "next"  # this session cannot be resumed: the next candidate
    FRESH = "fresh"  # resumed in vain: once more in a fresh session
    FAIL = "fail"  # trying again would only repeat it
    CANCELLED = "cancelled"
    DRAINED = "drained"  # a deploy, a long job: back to the queue, no attempt is spent
    LOST = "lost"  # the attempt was replaced: write nothing


def _both(verdict: Verdict) -> tuple[Verdict, Verdict]:
    return verdict, verdict


# What is done about a failure of the agent: on a fresh session, on a resumed one.
AGENT = {
    "authentication_failed": _both(Verdict.PARK),
    "billing_error": _both(Verdict.PARK),
    "rate_limit": _both(Verdict.PARK),
    "model_not_found": _both(Verdict.FAIL),
    "cli_too_old": _both(Verdict.FAIL),
    "settings_refused": _both(Verdict.FAIL),
    "host_policy": _both(Verdict.FAIL),
    "start_refused": _both(Verdict.FAIL),
    "network_refused": _both(Verdict.FAIL),
    "max_turns": _both(Verdict.FAIL),
    "budget_exhausted": _both(Verdict.FAIL),
    "limit_exceeded": _both(Verdict.FAIL),
    "blocking_limit": (Verdict.FAIL, Verdict.COMPACT),
    "prompt_too_long": (Verdict.FAIL, Verdict.COMPACT),
    "message_too_long": (Verdict.FAIL, Verdict.FRESH),
    "context_thrashing": (Verdict.FAIL, Verdict.FRESH),
    "session_unusable": (Verdict.FAIL, Verdict.FRESH),
    "safety_blocked": (Verdict.FAIL, Verdict.FRESH),
    "request_refused": (Verdict.FAIL, Verdict.FRESH),
    "request_too_large": (Verdict.FAIL, Verdict.FRESH),
    "message_too_large": (Verdict.FAIL, Verdict.FRESH),
    "start_failed": (Verdict.FAIL, Verdict.FRESH),
    "session_unknown": (Verdict.FAIL, Verdict.NEXT),
    "server_error": _both(Verdict.RETRY),
    "overloaded": _both(Verdict.RETRY),
    "unreachable": _both(Verdict.RETRY),
    "malformed_response": _both(Verdict.RETRY),
    "certificate_refused": _both(Verdict.RETRY),
    "model_error": _both(Verdict.RETRY),
    "turn_setup_failed": _both(Verdict.RETRY),
    "aborted": _both(Verdict.RETRY),
    "max_output_tokens": _both(Verdict.RETRY),
    "malformed_tool_use": _both(Verdict.RETRY),
    "structured_output_retry_exhausted": _both(Verdict.RETRY),
    "compaction_failed": _both(Verdict.RETRY),
    "unanswered": _both(Verdict.RETRY),
    "id_in_use": _both(Verdict.RETRY),
    "killed": _both(Verdict.RETRY),
    "crashed": _both(Verdict.RETRY),
    "store_failed": _both(Verdict.RETRY),
    "workspace_missing": _both(Verdict.RETRY),
    "cli_missing": _both(Verdict.WAIT),
    "agent_home_unwritable": _both(Verdict.WAIT),
    "box_refused": _both(Verdict.WAIT),
    "egress_away": _both(Verdict.WAIT),
    "egress_refused": _both(Verdict.RETRY),
}

# How often a job is tried in all when it fails like this; others: BATON_ATTEMPTS.
TRIES = {
    "structured_output_retry_exhausted": 2,
    "max_output_tokens": 2,
    "malformed_tool_use": 2,
    "compaction_failed": 2,
    "workspace_missing": 2,
}
# Failures that may be the session's own fault: the second from one parent counts against
# it (docs/decisions/0006). None that is about the request: what it asks for, or a limit.
BLAMED = {
    "server_error",
    "malformed_response",
    "model_error",
    "turn_setup_failed",
    "killed",
    "crashed",
    "store_failed",
    "idle_timeout",
}
# Failures whose cause is known to lie elsewhere than in the session: a fresh one would meet it
# as well. Any other is met once without the session before the job fails for good.
ELSEWHERE = {
    "model_not_found",
    "cli_too_old",
    "settings_refused",
    "host_policy",
    "start_refused",
    "network_refused",
    "certificate_refused",
    "max_turns",
    "budget_exhausted",
    "budget_spent",
    "limit_exceeded",
    "workspace_missing",
    "workspace_failed",
    "workspace_too_large",
    "git_ended",
    "bad_request",
    "disk_full",
    "not_writable",
    "host_exhausted",
    "host_failed",
    "postgres_unreachable",
    "statement_stopped",
    "refused_by_postgres",
    "redis_unreachable",
}
STOPS = {
    "cancelled": Verdict.CANCELLED,
    "replaced_by_request": Verdict.CANCELLED,
    "drained": Verdict.DRAINED,
    "long_job": Verdict.DRAINED,
    "lease_lost": Verdict.LOST,
    "turn_timeout": Verdict.RETRY,
    "idle_timeout": Verdict.RETRY,
}


def tries_of(error_class: str, attempts: int) -> int:
    """How many attempts a job gets that fails like this, of `attempts` in general."""
    return min(attempts, TRIES.get(error_class, attempts))
