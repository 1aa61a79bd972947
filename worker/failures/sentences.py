"""What people are told of a failure: one line that says what to do."""

import re

import psycopg

from config.redaction import redacted
from db.core.outages import is_away, is_stopped
from db.core.refusals import is_refused, rule
from db.transcripts.transcripts import TranscriptDamaged
from worker.failures.errors import (
    DISK_FULL,
    EXHAUSTED,
    NOT_WRITABLE,
    AgentFailed,
    AnswerNeeded,
    JobError,
    NoRoom,
    NotResumable,
    Stopped,
    judge,
)
from worker.text.storable import plain

IDS = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\breq_\w+", re.IGNORECASE
)
LONGEST = 500  # characters
LOOKED_AT = 20 * LONGEST


def for_people(exc: BaseException) -> str:
    """The error as one line for people: no session ids, no keys, not endless."""
    match exc:
        case Stopped():
            text = STOP_TEXTS.get(str(exc), str(exc))
        case AgentFailed():
            known = SENTENCES.get(judge(exc, resumed=False).error_class, "{text}")
            text = known.replace("{text}", exc.text.rstrip(".") + ".")
        case AnswerNeeded():
            text = f"The previous session cannot be resumed ({exc}): answer retry or start_new."
        case NotResumable() | TranscriptDamaged():
            text = "The previous session cannot be resumed."
        case NoRoom():
            text = SENTENCES["disk_full"]
        case JobError():
            text = str(exc) or type(exc).__name__
        case MemoryError() | OSError():
            text = _of_the_host(exc)
        case psycopg.Error():
            text = _of_postgres(exc)
        case _:
            text = f"{type(exc).__name__}: {exc}"
    line = " ".join(plain(text)[:LOOKED_AT].split())
    return redacted(IDS.sub("[id]", line))[:LONGEST]


def _of_postgres(exc: psycopg.Error) -> str:
    if is_away(exc):
        return "Postgres did not answer."
    if is_stopped(exc):
        return (
            f"Postgres stopped a statement ({exc.diag.message_primary or type(exc).__name__}): look"
            " for a lock that is held, a slow trigger, or a time-out of the role or the database"
            " that is too short."
        )
    if is_refused(exc):
        return (
            f"Postgres refuses to record it, by {rule(exc)}: correct the table or the request."
        )
    return f"Postgres refused ({type(exc).__name__}): see the worker's log."


def _of_the_host(exc: MemoryError | OSError) -> str:
    if isinstance(exc, MemoryError) or exc.errno in EXHAUSTED:
        return SENTENCES["host_exhausted"]
    if exc.errno in DISK_FULL:
        return SENTENCES["disk_full"]
    if exc.errno in NOT_WRITABLE:
        return f"{exc.filename or 'A file'} cannot be used: {exc.strerror}."
    return f"The worker's host refused: {exc.strerror or exc} ({exc.filename or 'no file'})."


STOP_TEXTS = {
    "cancelled": "Cancelled on request.",
    "replaced_by_request": "Stopped for a newer request.",
    "drained": "Its worker was stopped; another goes on with it.",
    "long_job": "It takes long: it goes on in a process of its own.",
    "lease_lost": "Its worker lost the job to another.",
    "turn_timeout": "The agent ran longer than BATON_TURN_TIMEOUT allows.",
    "idle_timeout": "The agent said nothing for as long as BATON_IDLE_TIMEOUT allows.",
}
SENTENCES = {  # by error class; {text} is what the agent or the API said
    "authentication_failed": "The model's API refused the key: correct ANTHROPIC_API_KEY, then"
    " run `baton doctor`; the jobs that wait for it go on.",
    "billing_error": "The account has no credit left at the model's API: top it up, then run"
    " `baton doctor`; the jobs that wait for it go on.",
    "rate_limit": "The model's API asked to wait: the job goes on when the limit ends.",
    "model_not_found": "The model is unknown, or this key may not use it: choose another model.",
    "request_refused": "The model's API refused the request: {text}",
    "request_too_large": "The request is too large for the model's API: shorten the prompt, or"
    " begin a fresh session.",
    "prompt_too_long": "The conversation is too long for the model: shorten the prompt, or"
    " begin a fresh session.",
    "blocking_limit": "The prompt is too long for the model: shorten it, or put the text into"
    " a file of the workspace.",
    "message_too_long": "The prompt alone is too long for the model: shorten it, or put the text"
    " into a file of the workspace.",
    "context_thrashing": "What the agent reads fills the model's context again and again: ask"
    " for less at once, or begin a fresh session.",
    "session_unusable": "The conversation cannot be gone on from: {text}",
    "cli_too_old": "The agent's CLI is too old for this model or account: update Baton, or"
    " choose another model. {text}",
    "settings_refused": "The model's API refuses a setting: {text}",
    "host_policy": "A hook or policy on the worker's host stopped the agent: look at the agent"
    " CLI's managed settings there.",
    "safety_blocked": "The model's API blocked the answer: ask for something else.",
    "start_refused": "The agent's CLI refuses to start on this host: {text}",
    "network_refused": "The model's API refuses requests from this network: {text}",
    "certificate_refused": "The certificate of the model's API is not trusted: set"
    " NODE_EXTRA_CA_CERTS to the authority that signed it.",
    "max_turns": "The agent reached the limit of its turns: ask for less at once, or raise"
    " max_turns.",
    "budget_exhausted": "The agent reached its budget: ask for less at once, or raise it.",
    "limit_exceeded": "{text}",
    "structured_output_retry_exhausted": "The agent's answer is not of the form that was"
    " asked for.",
    "max_output_tokens": "The agent's answer is longer than the model may give at once: ask for"
    " less at once.",
    "malformed_tool_use": "The model's calls of tools could not be read.",
    "compaction_failed": "The conversation could not be compacted: {text}",
    "model_error": "The agent failed: {text}",
    "turn_setup_failed": "The agent could not begin: {text}",
    "aborted": "The agent was interrupted, and not by its worker.",
    "store_failed": "The session could not be loaded: {text}",
    "server_error": "The model's API failed.",
    "overloaded": "The model's API is overloaded.",
    "unreachable": "The model's API does not answer: check the network, and"
    " ANTHROPIC_BASE_URL if it is set.",
    "egress_refused": "The egress proxy does not know the turn: let `egress` and the workers of a host"
    " have one DATABASE_URL.",
    "malformed_response": "The answer of the model's API broke off.",
    "unanswered": "The agent was started and did not answer: {text}",
    "disk_full": "A disk is full that the worker writes to (BATON_WORKSPACES,"
    " BATON_AGENT_HOME): make room; the job is tried again.",
    "host_exhausted": "The worker's host has no memory, processes or open files left: give it"
    " more, or fewer jobs at once (BATON_SLOTS); the job is tried again.",
}
