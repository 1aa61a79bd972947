"""The Claude Code CLI, through claude-agent-sdk: one run is one turn.

Always a fork under an id of ours, so a turn never writes into its parent and a failed
one harms nothing. Nothing of the project's own settings runs here: no hooks, no MCP
servers, no CLAUDE.md (worker/session/notes.py tells of it). The agent is stopped by ending its keeper, never by
cancelling the SDK's generator (a second cancel would leave an orphan).

A turn has a directory of its own, for the CLI's configuration and temporary files, which
is gone when it ends: nothing of one project's sessions lies where another's agent looks.
"""

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator
from typing import Any, cast
from urllib.parse import urlsplit

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKError,
    query,
)
from claude_agent_sdk.types import SessionStore

from config.settings import ANTHROPIC, settings
from db.core.outages import may_pass
from db.transcripts.transcripts import TranscriptDamaged
from worker.agent import Request, Turn, Watch, answers, relation
from worker.agent.failures import (
    Report,
    compaction_failure,
    failure,
    whole,
)
from worker.agent.listening import dropped_lines, note
from worker.agent.store import JobStore
from worker.agent.usage import context, count
from worker.failures.errors import (
    AgentFailed,
    CaptureIncomplete,
    JobError,
    NoRoom,
    Stopped,
)
from worker.sandbox import network
from worker.sandbox.home import own_directory, unwritable
from worker.sandbox.leash import launcher
from worker.text.storable import plain, plain_data
from worker.workspace import git, removal

# The same tools in every turn, whatever it is for: another list would forfeit the prompt cache
# (docs/decisions/0028). So what a turn may not do is refused by rule, never left out: what is
# asked for where nobody is asked is refused, and the tool stays on the list (disallowed, it
# would be gone).
TOOLS = ["Bash", "Edit", "Glob", "Grep", "Read", "Write"]
SUB_AGENTS = ["Agent", "SendMessage"]
READ = ["Read(./**)", "Glob(./**)", "Grep(./**)", answers.NAME]
WORK = ["Bash", *READ, "Edit(./**)", "Write(./**)"]
# Allowed by the CLI's own rules in every mode, though they run or write something.
NOT_READING = ["Bash", "Monitor", "EnterWorktree", "Agent(isolation:*)"]
READ_ONLY = json.dumps({"permissions": {"ask": NOT_READING}})

ANTHROPICS = urlsplit(ANTHROPIC).hostname
SOCKET_PATH = 103  # bytes, as the CLI counts them
ROOM = 2**20  # bytes; a turn that fails where there is less has failed for that
PAID_FOR = {"drained", "turn_timeout", "idle_timeout"}  # a turn that ended all the same counts


def claude(request: Request, *, store: JobStore, watch: Watch) -> Turn:
    """The Agent that runs the real CLI."""
    report = Report(wanted=request.schema is not None)
    try:
        with _directory(request, report), _translated(report, watch, request):
            asyncio.run(_follow(request, store, watch, report))
        ended = report.result is not None and whole(report.result)
        if (reason := watch.stopped()) and not (ended and reason in PAID_FOR):
            raise Stopped(reason)
        return _turn(request, store, report)
    except JobError as exc:
        told = exc
        explained = isinstance(exc, Stopped) or (isinstance(exc, AgentFailed) and exc.status)
        if report.no_room and not explained:
            told = NoRoom(str(exc))
        report.charge(told)
        raise told from exc.__cause__


@contextlib.contextmanager
def _directory(request: Request, report: Report) -> Generator[None]:
    """Make the turn's directory, let the SDK lay the session out in it, and remove it."""
    own = own_directory(request.minted)
    try:
        own.mkdir(parents=True, exist_ok=True)
        launcher()
        network.check()
    except OSError as exc:
        raise unwritable(exc) from exc
    tempfile.tempdir = str(own)
    try:
        yield
    finally:
        tempfile.tempdir = None
        with contextlib.suppress(OSError):  # it is gone: what was raised says more
            report.no_room = shutil.disk_usage(own.parent).free < ROOM
        removal.discard(own)


async def _follow(request: Request, store: JobStore, watch: Watch, report: Report) -> None:
    with dropped_lines(watch.alive):
        async for message in query(
            prompt=request.prompt, options=options(request, store, watch, report)
        ):
            watch.alive()
            note(message, watch, report, request.cwd)


def options(
    request: Request, store: JobStore, watch: Watch, report: Report
) -> ClaudeAgentOptions:
    """What the CLI is started with."""
    own = str(own_directory(request.minted))
    env = {
        "CLAUDE_CONFIG_DIR": own,
        "HOME": own,  # a box has one of its own; a profile that a turn leaves is no other's
        "TMPDIR": own,
        "XDG_RUNTIME_DIR": _sockets(own),
        "CLAUDE_CODE_MAX_RETRIES": str(
            settings().cli_retries
        ),  # left alone it goes on for minutes
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1",
        # Its directory is gone with the turn, and its name would change the prompt each time.
        "CLAUDE_CODE_DISABLE_AUTO_MEMORY": "1",
        # Why it does not start, as a field.
        "CLAUDE_CODE_STARTUP_FAILURE_RESULTS": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_AUTOUPDATER": "1",
        # The CLI looks for a repository above the workspace by itself, and tells the model of it.
        "CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS": "1",
        **git.for_agents(request.cwd),
        "ANTHROPIC_API_KEY": request.token,  # the egress proxy knows whose it is, and has the key
        **({"ENABLE_PROMPT_CACHING_1H": "1"} if request.hour else {}),
        **_first_party(),
        "BATON_ATTEMPT": str(request.attempt or ""),
        "BATON_FORK": f"{request.resume}:{request.minted}" if request.resume else "",
        **watch.keeper_env,
    }
    return ClaudeAgentOptions(
        cli_path=launcher(),
        cwd=request.cwd,
        env=env,
        resume=request.resume,
        fork_session=request.resume is not None,
        session_id=str(request.minted),
        session_store=cast(SessionStore, store),
        include_partial_messages=True,  # an answer that streams is a sign of life
        session_store_flush="eager",  # what the agent did is kept, however the worker dies
        permission_mode="acceptEdits" if request.mode != "read" else "dontAsk",
        settings=READ_ONLY if request.mode == "read" else None,
        tools=[*TOOLS, *(SUB_AGENTS if settings().subagents else [])],
        mcp_servers={answers.SERVER: cast(Any, answers.server(wanted=bool(request.schema)))},
        allowed_tools=READ if request.mode == "read" else WORK,
        setting_sources=[],
        strict_mcp_config=True,
        # The same for every project and day: what is of this one is told in the conversation.
        system_prompt={
            "type": "preset",
            "preset": "claude_code",
            "exclude_dynamic_sections": True,
        },
        verbatim_prompts=request.mode != "compact",  # users' text is data
        output_format={"type": "json_schema", "schema": request.schema}
        if request.schema and request.enforced
        else None,
        model=request.model or settings().model or None,
        max_turns=request.max_turns or settings().max_turns,
        max_budget_usd=request.budget_usd,
        max_buffer_size=settings().max_message_bytes,
        stderr=report.heard,
    )


def _first_party() -> dict[str, str]:
    """The CLI goes by its base URL, which is the egress proxy's: behind that is Anthropic's own
    API, unless an operator has named another. Left alone it would not search for tools, and mark
    less of the prompt for the cache."""
    named = urlsplit(settings().anthropic_base_url or ANTHROPIC).hostname
    return {"_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL": "1"} if named == ANTHROPICS else {}


def _sockets(own: str) -> str:
    """Where the CLI's socket goes. Where its path is too long for one in the turn's directory,
    the CLI would take /tmp whatever TMPDIR says, and a killed one leaves it there."""
    fits = len(os.fsencode(f"{own}/cc-socks/4194304.sock")) <= SOCKET_PATH
    return own if fits else os.environ.get("TMPDIR", own)


@contextlib.contextmanager
def _translated(report: Report, watch: Watch, request: Request) -> Generator[None]:
    """Turn the SDK's errors into ours, by their fields."""
    try:
        yield
    except ClaudeSDKError as exc:
        if reason := watch.stopped():
            raise Stopped(reason) from exc
        raise failure(exc, report) from exc
    except RuntimeError as exc:
        # The SDK wraps what the store raised while a session was loaded for a resume.
        cause = exc.__cause__
        if cause and (isinstance(cause, (TranscriptDamaged, JobError)) or may_pass(cause)):
            raise cause from exc
        kind = "store_failed" if request.resume and exc.__cause__ else "unknown"
        raise AgentFailed(kind, str(exc)) from exc
    except Exception as exc:
        if type(exc) is not Exception:
            raise
        # The SDK has no class for an agent that does not answer, in the first minute or later,
        # or that answers with a refusal.
        if reason := watch.stopped():
            raise Stopped(reason) from exc
        late = "timeout" in str(exc)
        raise AgentFailed("unanswered" if late else "start_failed", str(exc)) from exc


def _turn(request: Request, store: JobStore, report: Report) -> Turn:
    result = report.result
    if report.limited:
        raise report.limited
    if result is None:
        raise CaptureIncomplete("The agent ended without a result.")
    if not whole(result):
        raise failure(None, report)
    compacted = request.mode != "compact" or report.boundary is not None
    if not compacted and (failed := compaction_failure(report)):
        raise failed
    if report.mirror_error is not None or not store.whole:
        raise CaptureIncomplete(f"Part of the transcript was not stored: {report.mirror_error}")
    if not store.messages:
        raise CaptureIncomplete("The agent wrote down nothing of what was said.")
    observed = result.session_id
    if report.seen_ids and report.seen_ids[-1] != observed:
        raise CaptureIncomplete("The agent named two sessions for one turn.")
    usage = result.usage or {}
    return Turn(
        session=observed,
        parent=request.resume,
        minted=str(request.minted),
        relation=relation(observed, minted=str(request.minted), parent=request.resume),
        text=plain(result.result or ""),
        structured=plain_data(result.structured_output or report.answer),
        raw_cost_usd=result.total_cost_usd,
        input_tokens=count(usage, "input"),
        output_tokens=count(usage, "output"),
        cache_read_tokens=count(usage, "cache_read"),
        cache_creation_tokens=count(usage, "cache_creation"),
        context_tokens=(report.boundary or {}).get("post_tokens") or context(report.last_usage),
        duration_ms=result.duration_ms,
        num_turns=result.num_turns,
        model=report.model,
        cli_version=report.cli_version,
        compacted=report.boundary is not None,
        pre_tokens=(report.boundary or {}).get("pre_tokens"),
        post_tokens=(report.boundary or {}).get("post_tokens"),
        no_room=report.no_room,
    )
