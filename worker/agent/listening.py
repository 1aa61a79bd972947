"""What is heard of a run: each message of the CLI, taken down and told to those who watch.

Whatever the CLI writes is a sign of life. The SDK hands on the messages that it knows, among
them the pieces of an answer that streams; of others, as `tool_progress` (every 30 s while a
command runs), it says only in its log that it drops them. So that is listened to as well.
"""

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    MirrorErrorMessage,
    RateLimitEvent,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from worker.agent import Watch, answers
from worker.agent.failures import Report, rate_limited
from worker.process import crash_points

DROPPED = logging.getLogger("claude_agent_sdk._internal.message_parser")


class _Heard(logging.Handler):
    """Calls `alive` for each line that the SDK drops, in the thread that runs the agent."""

    def __init__(self, alive: Callable[[], None]) -> None:
        super().__init__(logging.DEBUG)
        self._alive, self._thread = alive, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._alive()


@contextlib.contextmanager
def dropped_lines(alive: Callable[[], None]) -> Generator[None]:
    """Within the block `alive` is called also for messages of which the SDK makes nothing."""
    heard = _Heard(alive)
    DROPPED.setLevel(logging.DEBUG)
    DROPPED.propagate = False  # it is no log of ours
    DROPPED.addHandler(heard)
    try:
        yield
    finally:
        DROPPED.removeHandler(heard)


def note(message: object, watch: Watch, report: Report, cwd: Path) -> None:
    """Take down what a message says. Who watches is told of files as they lie below `cwd`."""
    report.messages += 1
    match message:
        case MirrorErrorMessage(error=error):
            report.mirror_error = error  # the SDK goes on; a head must not
        case SystemMessage(subtype=subtype, data=data):
            _note_system(subtype, data, watch, report)
        case StreamEvent(event=event, parent_tool_use_id=None):
            report.writing.hear(event, watch)
        case AssistantMessage():
            _note_assistant(message, watch, report, cwd)
        case UserMessage(content=list(blocks)):
            for block in blocks:
                if isinstance(block, ToolResultBlock):
                    _note_done(block, watch, report)
        case RateLimitEvent(rate_limit_info=info) if info.status == "rejected":
            report.limit_ends_at = info.resets_at
        case ResultMessage():
            report.result = message
        case _:
            pass


def _note_system(subtype: str, data: dict[str, Any], watch: Watch, report: Report) -> None:
    match subtype:
        case "init":
            report.cli_version = data.get("claude_code_version")
            report.model = data.get("model")
            report.seen_ids.append(str(data.get("session_id")))
            crash_points.reach("agent.ready")
        case "compact_boundary":
            report.boundary = data.get("compact_metadata") or {}
        case "status" if data.get("compact_result") == "failed":
            report.compact_error = str(data.get("compact_error") or "")
        case "status" if data.get("compact_result"):
            report.compact_error = None
        case "session_writes_lost" if "transcript" in (data.get("lost") or []):
            report.mirror_error = f"The agent could not write it ({data.get('error_code')})."
        case "api_retry":
            watch.saw("model.retry", {k: data.get(k) for k in ("attempt", "error_status")})
            if found := rate_limited(data):
                report.limited = found
                watch.end()
        case _:
            pass


def _note_done(block: ToolResultBlock, watch: Watch, report: Report) -> None:
    watch.saw("tool.done", {"id": block.tool_use_id, "error": bool(block.is_error)})
    name, answer = report.given.get(block.tool_use_id, ("", None))
    if not name or not report.wanted:
        return
    if answers.fits(answer):  # also one that was given by a tool that was not offered
        report.answer = answer
        return
    report.refused += 1
    if report.refused >= answers.TRIES and name == answers.NAME:
        report.limited = answers.missing(answers.EXHAUSTED)
        watch.end()


def _note_assistant(message: AssistantMessage, watch: Watch, report: Report, cwd: Path) -> None:
    if message.parent_tool_use_id is None:
        report.error_kind = message.error  # of a sub-agent's failure the agent itself hears
        if message.usage and not message.error:
            report.last_usage = message.usage
    if message.usage and message.message_id:
        report.usages[message.message_id] = message.usage  # told again with each block
    for block in message.content:
        match block:
            case TextBlock(text=text) if text.strip():
                watch.saw("text", {"text": text})
            case ToolUseBlock(id=tool_id, name=name, input=given):
                watch.saw("tool", {"id": tool_id, "name": name, "about": _about(given, cwd)})
                if name in answers.GIVEN_BY:
                    report.given[tool_id] = (name, given)
            case _:
                pass


def _about(given: dict[str, Any], cwd: Path) -> str:
    """The one argument of a tool call that tells a person what it does. Where the workspace lies
    on this host is nobody's business."""
    for name in ("file_path", "command", "pattern", "path", "url", "description"):
        if isinstance(value := given.get(name), str):
            return _within(value, cwd)[:200]
    return ""


def _within(text: str, cwd: Path) -> str:
    """The text with the files of the workspace named from there."""
    for place in {str(cwd), str(cwd.resolve())}:
        text = re.sub(rf"(?<![\w./-]){re.escape(place)}(?:/+(?=\S)|(?![\w.-]))", "", text)
    return text or "."
