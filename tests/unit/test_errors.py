"""One verdict for each failure, and a text for people that gives nothing away."""

import errno

import psycopg
import psycopg_pool
import pytest
import redis

from db.transcripts.transcripts import TranscriptDamaged
from worker.agent.failures import said
from worker.client import Refused
from worker.failures import errors, sentences
from worker.failures.errors import AgentFailed, Verdict, judge
from worker.failures.sentences import for_people

SESSION = "0f0e0d0c-0b0a-4908-8706-050403020100"


def agent(kind: str = "unknown", **more: object) -> AgentFailed:
    return AgentFailed(kind, "what it said", **more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("failure", "resumed", "verdict", "error_class"),
    [
        (agent("authentication_failed", status=401), True, "park", "authentication_failed"),
        (agent("billing_error", status=400), True, "park", "billing_error"),
        (agent("rate_limit", status=429), False, "park", "rate_limit"),
        (agent(status=400), True, "fresh", "request_refused"),
        (agent(status=400), False, "fail", "request_refused"),
        (agent("invalid_request", status=413, ending="image_error"), True, "fresh", None),
        (agent("invalid_request", status=400, ending="prompt_too_long"), True, "compact", None),
        (agent("unknown", ending="blocking_limit"), True, "compact", None),
        (agent("unknown", ending="blocking_limit"), False, "fail", None),
        (agent("rate_limit", ending="max_turns"), True, "fail", "max_turns"),
        (agent("max_output_tokens", ending="api_error"), True, "retry", "max_output_tokens"),
        (agent("model_not_found", status=403), True, "fail", "model_not_found"),
        (agent("unknown", status=422), True, "fresh", "request_refused"),
        (agent("unknown", status=503), True, "retry", "server_error"),
        (agent("unknown", ending="api_error"), True, "retry", "malformed_response"),
        (
            agent("invalid_request", status=400, cause="tool_history_mismatch"),
            True,
            "fresh",
            "session_unusable",
        ),
        (
            agent("invalid_request", ending="blocking_limit", cause="autocompact_thrashing"),
            True,
            "fresh",
            "context_thrashing",
        ),
        (agent("crashed", exit_code=1), False, "retry", "crashed"),
        (psycopg.errors.CheckViolation("x"), True, "fail", "refused_by_postgres"),
        (agent("server_error", status=529), True, "retry", "overloaded"),
        (agent("session_unknown"), True, "next", None),
        (agent("something_new"), True, "retry", "something_new"),
        (agent("something_new"), False, "fail", "something_new"),
        (agent("killed", exit_code=137), False, "retry", "killed"),
        (TranscriptDamaged("x"), True, "next", "damaged"),
        (errors.NotResumable("stale"), True, "next", "stale"),
        (errors.AnswerNeeded("stale"), True, "ask", "ask"),
        (errors.AttemptReplaced("x"), True, "lost", "attempt_replaced"),
        (errors.Stopped("cancelled"), True, "cancelled", "cancelled"),
        (errors.Stopped("drained"), True, "drained", "drained"),
        (errors.CaptureIncomplete("x"), True, "retry", "capture_incomplete"),
        (errors.HeadMoved("x"), True, "retry", "head_moved"),
        (Refused("x"), True, "fail", "bad_request"),
        (psycopg.OperationalError("x"), True, "retry", "postgres_unreachable"),
        (psycopg_pool.PoolTimeout("x"), True, "retry", "postgres_unreachable"),
        (psycopg.errors.DiskFull("x"), True, "retry", "postgres_unreachable"),
        (psycopg.errors.AdminShutdown("x"), True, "retry", "postgres_unreachable"),
        (psycopg.errors.ReadOnlySqlTransaction("x"), True, "retry", "postgres_unreachable"),
        (psycopg.errors.QueryCanceled("x"), True, "retry", "statement_stopped"),
        (psycopg.errors.LockNotAvailable("x"), True, "retry", "statement_stopped"),
        (psycopg.errors.DeadlockDetected("x"), True, "retry", "statement_stopped"),
        (psycopg.errors.ProgramLimitExceeded("x"), True, "fail", "refused_by_postgres"),
        (psycopg.errors.ObjectNotInPrerequisiteState("x"), True, "fail", "refused_by_postgres"),
        (OSError(errno.ENOMEM, "x"), False, "retry", "host_exhausted"),
        (MemoryError(), False, "retry", "host_exhausted"),
        (errors.GitEnded("x"), False, "retry", "git_ended"),
        (errors.WorkspaceFailed("x"), False, "retry", "workspace_failed"),
        (errors.WorkspaceBusy("x"), False, "wait", "workspace_busy"),
        (errors.RemoteRefuses("x", frozenset()), False, "wait", "workspace_away"),
        (redis.ConnectionError("x"), True, "retry", "redis_unreachable"),
        (OSError(errno.ENOSPC, "full"), True, "retry", "disk_full"),
        (OSError(errno.EACCES, "no"), True, "retry", "not_writable"),
        (FileNotFoundError(errno.ENOENT, "gone"), True, "retry", "host_failed"),
        (KeyError("x"), True, "fail", "internal_error"),
        (psycopg.errors.UndefinedTable("x"), True, "fail", "internal_error"),
    ],
)
def test_each_failure_has_its_verdict(
    failure: BaseException, resumed: bool, verdict: str, error_class: str | None
):
    judged = judge(failure, resumed=resumed)
    assert judged.verdict is Verdict(verdict)
    assert error_class in (None, judged.error_class)


def test_only_what_the_table_lacks_is_unknown():
    assert not judge(agent("something_new"), resumed=True).known
    assert judge(agent("killed"), resumed=True).known
    assert judge(KeyError("x"), resumed=True).known


@pytest.mark.parametrize(
    "failure",
    [
        agent(),
        AgentFailed("x", f"Session {SESSION} of sk-ant-api03-abcdef and req_0123 broke."),
        errors.NotWhole(f"{SESSION}\x00\nand more\ud83d"),
        KeyError(f"postgresql://ann:pa55@db/{SESSION}"),
        psycopg.OperationalError('connection to "db" failed: password "x" refused'),
        errors.BadRequest("x" * 10_000),
    ],
)
def test_people_are_told_no_id_and_no_secret(failure: BaseException):
    text = for_people(failure)
    assert text.encode()
    assert "\n" not in text
    assert len(text) <= 500
    for hidden in (SESSION, "sk-ant", "req_0", "pa55", "password", "\x00"):
        assert hidden not in text


def test_every_reason_to_stop_has_a_verdict_and_a_sentence():
    assert set(errors.STOPS) == set(sentences.STOP_TEXTS)
    assert all(text.endswith(".") for text in sentences.STOP_TEXTS.values())
    assert all(text.endswith((".", "{text}")) for text in sentences.SENTENCES.values())


def test_what_the_api_said_is_taken_out_of_its_json():
    quoted = 'API Error: 400 {"type":"error","error":{"message":"messages: too few"}}'
    assert said(quoted) == "messages: too few"
    assert said("API Error: 500 {broken") == "API Error: 500"
    assert said("Prompt is too long") == "Prompt is too long"
    assert said("") == ""
