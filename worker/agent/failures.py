"""What a run of the CLI told, and the failure that it amounts to. Fields decide, not prose.

Where the CLI has no field its words have to do: an id that is in use is told on stderr only, a
session that it does not find in `errors`, and why a compaction failed as worker/agent/compacting.py
says. Tests hold each of them. docs/errors.md has the table of what becomes of a failure.
"""

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from claude_agent_sdk import (
    CLIConnectionError,
    CLIJSONDecodeError,
    CLINotFoundError,
    ProcessError,
    ResultError,
    ResultMessage,
)

from worker.agent import compacting
from worker.agent.usage import weight
from worker.agent.writing import Writing
from worker.failures.errors import AgentFailed, JobError
from worker.failures.vocabulary import STARTUP, SUBTYPES, WHOLE
from worker.sandbox.bounds import EXCEEDED

PATIENCE = timedelta(seconds=10)  # a longer wait is spent parked, not in a slot
STDERR_LINES = 40  # kept for the error text of a CLI that could not start
ID_IN_USE = "is already in use"
NOT_FOUND = "No conversation found"
TOO_LONG = {"blocking_limit", "prompt_too_long"}
ENDED = re.compile(r"exit code: (-?\d+)")  # what the SDK says of a program that ended early
SIGNALS = (137, 143, -9, -15)


@dataclass
class Report:
    """What was seen of a run so far."""

    result: ResultMessage | None = None
    messages: int = 0
    writing: Writing = field(default_factory=Writing)
    seen_ids: list[str] = field(default_factory=list[str])
    cli_version: str | None = None
    model: str | None = None
    boundary: dict[str, Any] | None = None
    last_usage: dict[str, Any] | None = None
    usages: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    error_kind: str | None = (
        None  # of the newest answer of the agent itself, if it was an error
    )
    compact_error: str | None = None  # why the newest compaction failed, in the CLI's words
    mirror_error: str | None = None
    limit_ends_at: int | None = None  # seconds since the epoch, of a plan's limit
    limited: AgentFailed | None = None
    wanted: bool = False  # an answer of a given form
    given: dict[str, tuple[str, Any]] = field(default_factory=dict[str, tuple[str, Any]])
    answer: Any = None  # the newest that fits
    refused: int = 0  # answers that do not
    no_room: bool = False  # where the agent writes its transcript
    stderr: list[str] = field(default_factory=list[str])

    @property
    def limit_ends(self) -> datetime | None:
        """When the plan's limit ends, if one was met."""
        return datetime.fromtimestamp(self.limit_ends_at, UTC) if self.limit_ends_at else None

    def heard(self, line: str) -> None:
        """A line of the CLI's stderr."""
        self.stderr = [*self.stderr[-STDERR_LINES:], line]

    def charge(self, exc: JobError) -> None:
        """Note on a failure what the run cost, or what was seen of its use."""
        exc.raw_cost_usd = self.result.total_cost_usd if self.result else None
        exc.weight = weight(self.usages.values())
        exc.cli_version = self.cli_version


def rate_limited(retry: dict[str, Any]) -> AgentFailed | None:
    """A provider that asks for a long wait: the credential is parked instead."""
    wait = timedelta(milliseconds=float(retry.get("retry_delay_ms") or 0))
    if retry.get("error_status") != 429 or wait <= PATIENCE:
        return None
    return AgentFailed(
        "rate_limit", "The model's API asks to wait.", status=429, retry_after=wait
    )


def failure(exc: BaseException | None, report: Report) -> AgentFailed | OSError:
    """The run's failure, from what was raised and what was reported before."""
    if report.limited:
        return report.limited
    match exc:
        case CLINotFoundError():
            return AgentFailed(
                "cli_missing",
                "The agent's program is missing: run `make`, or set BATON_CLI_PATH.",
            )
        case CLIConnectionError():
            return _of_connection(exc, report)
        case CLIJSONDecodeError(original_error=json.JSONDecodeError()):
            return AgentFailed("crashed", "The agent wrote a line that cannot be read.")
        case CLIJSONDecodeError():
            return AgentFailed(
                "message_too_large",
                "The agent wrote a message that is too large: raise BATON_MAX_MESSAGE_BYTES.",
            )
        case ResultError() | None:
            return _of_result(exc, report)
        case ProcessError():
            return _of_process(exc, report)
        case _:
            return AgentFailed("unknown", str(exc))


def _of_connection(exc: CLIConnectionError, report: Report) -> AgentFailed | OSError:
    """The program was not started, or was gone before it was written to."""
    if "Working directory" in str(exc):
        return AgentFailed("workspace_missing", "The workspace is missing.")
    if ended := ENDED.search(str(exc)):
        return _of_process(ProcessError(str(exc), exit_code=int(ended[1])), report)
    if isinstance(exc.__cause__, OSError) and not isinstance(exc.__cause__, ConnectionError):
        return exc.__cause__  # the host did not let it start
    return AgentFailed("unanswered", f"The agent's program could not be spoken to: {exc}")


def compaction_failure(report: Report) -> AgentFailed | None:
    """Why a compaction that set no boundary failed; None if there was nothing to compact."""
    assert report.result
    told = report.compact_error or report.result.result or ""
    if failed := compacting.failure(told):
        failed.limit_ends_at = report.limit_ends
    return failed


def _of_result(exc: ResultError | None, report: Report) -> AgentFailed:
    """The failure that a result tells; `exc` has all of it, the message what the SDK knows of."""
    told = exc or report.result
    data: dict[str, Any] = exc.data if exc else {}
    ending = told.terminal_reason if told else None
    subtype = told.subtype if told else None
    errors = (told.errors if told else None) or []
    text = said((told.result if told else None) or "; ".join(errors))
    if reason := data.get("startup_failure_reason"):
        return AgentFailed(STARTUP.get(str(reason), str(reason)), text or str(reason))
    if ending is None and subtype == "error_during_execution" and NOT_FOUND in text:
        return AgentFailed("session_unknown", "The session is unknown to the agent.")
    word = SUBTYPES.get(subtype or "") if ending is None else None
    known = word or report.error_kind or (None if subtype in SUBTYPES else subtype)
    return AgentFailed(
        kind=known or "unknown",
        text=text or "The agent failed and did not say why.",
        status=told.api_error_status if told else None,
        ending=ending,
        cause=data.get("api_error"),
        exit_code=exc.exit_code if exc else None,
        limit_ends_at=report.limit_ends,
        outage=_outage(ending, report),
    )


def _outage(ending: str | None, report: Report) -> AgentFailed | None:
    """Why what is too long was not shortened, if that passes: the API did not answer to it."""
    if ending not in TOO_LONG or report.compact_error is None:
        return None
    return compacting.outage(report.compact_error)


def whole(result: ResultMessage) -> bool:
    """Whether the turn came to its end. (A local command, as /compact, gives no reason.)"""
    ended = result.terminal_reason is None or result.terminal_reason in WHOLE
    return ended and result.subtype == "success" and not result.is_error


def said(text: str) -> str:
    """What the API said, out of the JSON that the CLI quotes: `API Error: 400 {"type": …}`."""
    before, _, quoted = text.partition("{")
    try:
        body: Any = json.loads("{" + quoted)
        return str(body["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return (before if quoted and before.startswith("API Error") else text).strip()


def _of_process(exc: ProcessError, report: Report) -> AgentFailed:
    heard = "\n".join(report.stderr)
    text = heard.strip().rpartition("\n")[2] or str(exc)
    if exc.exit_code in SIGNALS:
        return AgentFailed("killed", "The agent's process was killed.", exit_code=exc.exit_code)
    if ID_IN_USE in heard:
        return AgentFailed("id_in_use", "The minted session id is in use.", exit_code=1)
    if exc.exit_code == EXCEEDED and text.startswith("keeper: "):
        return AgentFailed("limit_exceeded", text.removeprefix("keeper: "), exit_code=EXCEEDED)
    if exc.exit_code == 126 and heard.startswith("keeper:"):
        return AgentFailed("box_refused", f"{text}. Run workers as the user that owns it.")
    if exc.exit_code == 127 and heard.startswith("keeper:"):
        return AgentFailed("cli_missing", f"{text}. Run `make`, or correct BATON_CLI_PATH.")
    if report.messages:
        return AgentFailed(
            "crashed", f"The agent ended by itself: {text}", exit_code=exc.exit_code
        )
    return AgentFailed(
        "start_failed", f"The agent could not start: {text}", exit_code=exc.exit_code
    )
