"""What a run of the CLI told, and the failure that it amounts to. Fields decide, not prose.

The one exception is an id that is in use: the CLI says so on stderr only, and says
nothing else that tells it from a bad flag (docs/sessions.md, the error table).
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

from worker.agent.usage import weight
from worker.errors import AgentFailed, JobError

PATIENCE = timedelta(seconds=10)  # a longer wait is spent parked, not in a slot
STDERR_LINES = 40  # kept for the error text of a CLI that could not start
ID_IN_USE = "is already in use"
ENDED = re.compile(r"exit code: (-?\d+)")  # what the SDK says of a program that ended early
SIGNALS = (137, 143, -9, -15)


@dataclass
class Report:
    """What was seen of a run so far."""

    result: ResultMessage | None = None
    messages: int = 0
    seen_ids: list[str] = field(default_factory=list[str])
    cli_version: str | None = None
    model: str | None = None
    boundary: dict[str, Any] | None = None
    last_usage: dict[str, Any] | None = None
    usages: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    error_kind: str | None = None
    mirror_error: str | None = None
    resets_at: int | None = None  # seconds since the epoch, of a plan's limit
    limited: AgentFailed | None = None
    no_room: bool = False  # where the agent writes its transcript
    stderr: list[str] = field(default_factory=list[str])

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


def failure(exc: BaseException | None, report: Report) -> AgentFailed:
    """The run's failure, from what was raised and what was reported before."""
    if report.limited:
        return report.limited
    match exc:
        case CLINotFoundError():
            return AgentFailed(
                "cli_missing",
                "The agent's program is missing: run `make`, or set BATON_CLI_PATH.",
            )
        case CLIConnectionError() if "Working directory" in str(exc):
            return AgentFailed("workspace_missing", "The workspace is missing.")
        case CLIConnectionError() if ended := ENDED.search(str(exc)):
            code = int(ended[1])  # it ended before it was written to: why, is as below
            return _of_process(ProcessError(str(exc), exit_code=code), report)
        case CLIConnectionError() if not isinstance(exc, ProcessError):
            return AgentFailed(
                "cli_missing", f"The agent's program could not be started: {exc}"
            )
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


def _of_result(exc: ResultError | None, report: Report) -> AgentFailed:
    result = report.result
    status = exc.api_error_status if exc else result.api_error_status if result else None
    ending = exc.terminal_reason if exc else result.terminal_reason if result else None
    subtype = exc.subtype if exc else result.subtype if result else None
    errors = (exc.errors if exc else result.errors if result else None) or []
    text = (exc.result if exc else result.result if result else None) or "; ".join(errors)
    if ending is None and subtype == "error_during_execution" and not report.messages:
        # Raised at once, with no message before it: the session is not there.
        return AgentFailed("session_unknown", "The session is unknown to the agent.")
    return AgentFailed(
        kind=_kind(report.error_kind, status, ending, subtype),
        text=said(text) or "The agent failed and did not say why.",
        status=status,
        ending=ending,
        exit_code=exc.exit_code if exc else None,
        resets_at=datetime.fromtimestamp(report.resets_at, UTC) if report.resets_at else None,
    )


def said(text: str) -> str:
    """What the API said, out of the JSON that the CLI quotes: `API Error: 400 {"type": …}`."""
    before, _, quoted = text.partition("{")
    try:
        body: Any = json.loads("{" + quoted)
        return str(body["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return (before if quoted and before.startswith("API Error") else text).strip()


def _kind(
    reported: str | None, status: int | None, ending: str | None, subtype: str | None
) -> str:
    if reported in (None, "unknown") and ending == "api_error" and status is None:
        return "malformed_response"
    if reported == "server_error" and status is None:
        return "unreachable"
    return reported or ending or subtype or "unknown"


def _of_process(exc: ProcessError, report: Report) -> AgentFailed:
    heard = "\n".join(report.stderr)
    text = heard.strip().rpartition("\n")[2] or str(exc)
    if exc.exit_code in SIGNALS:
        return AgentFailed("killed", "The agent's process was killed.", exit_code=exc.exit_code)
    if ID_IN_USE in heard:
        return AgentFailed("id_in_use", "The minted session id is in use.", exit_code=1)
    if exc.exit_code == 127 and heard.startswith("keeper:"):
        return AgentFailed("cli_missing", f"{text}. Run `make`, or correct BATON_CLI_PATH.")
    return AgentFailed(
        "start_failed", f"The agent could not start: {text}", exit_code=exc.exit_code
    )
