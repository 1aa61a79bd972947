"""The agent: a function from a request to a turn.

    Request ──► Agent (claude: the CLI, through the SDK) ──► Turn, or a failure (failures)
                   └── transcript ──► store ──► db.transcripts

`listening` follows the CLI's messages; `answers` takes what has to be of a given form. Agents
without a CLI are in dev/agents.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from worker.agent.store import JobStore

Relation = Literal["fresh", "continued", "rolled", "forked", "reset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One run of the agent. `mode`: `work` may write the workspace, `read` may not,
    `compact` is the CLI's own /compact."""

    prompt: str
    minted: UUID
    resume: str | None
    cwd: Path
    mode: Literal["work", "read", "compact"] = "work"
    schema: dict[str, Any] | None = None  # of the answer that is asked for (answers)
    enforced: bool = False  # through the CLI's own tool for it, at the price of the cache
    hour: bool = False  # the provider keeps its prompts for one, and not for five minutes
    model: str | None = None
    max_turns: int | None = None
    budget_usd: float | None = None
    attempt: UUID | None = None
    token: str = field(default="", repr=False)  # of the turn, in place of the model's key


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A whole run: the session that came out of it, and what it used. Costs in USD."""

    session: str
    parent: str | None
    minted: str
    relation: Relation
    text: str
    structured: Any = None
    raw_cost_usd: float | None = None
    weight: float = 0.0  # of what was used and is not in `raw_cost_usd` (db/sessions/costs.py)
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    context_tokens: int = 0
    duration_ms: int = 0
    num_turns: int = 0
    model: str | None = None
    cli_version: str | None = None
    compacted: bool = False  # a compact boundary was seen
    pre_tokens: int | None = None
    post_tokens: int | None = None
    summary: str | None = None
    no_room: bool = False  # the disk that the CLI writes the transcript to was full in the end
    details: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """How a run is followed and stopped.

    `saw` is called with each step for people (tool calls, text); `alive` with every
    message; `stopped` tells the reason if the run was stopped; `end` ends the agent's
    process gently.
    """

    saw: Callable[[str, dict[str, Any]], None]
    alive: Callable[[], None]
    stopped: Callable[[], str | None]
    end: Callable[[], None]
    keeper_env: dict[str, str] = field(default_factory=dict[str, str])


class Agent(Protocol):
    """Anything that can run a turn."""

    def __call__(self, request: Request, *, store: "JobStore", watch: Watch) -> Turn:
        """Run one turn, on a fork of `request.resume` or on a new session.

        Raises the errors of `worker.failures.errors`: AgentFailed, Stopped, CaptureIncomplete.
        """
        ...


def the_cli() -> Agent:
    """The agent that jobs are done by. What it imports is half of what a worker loads, so beat,
    the relay, Flower and the command line do without."""
    from worker.agent.claude import claude

    return claude


def relation(observed: str, *, minted: str, parent: str | None) -> Relation:
    """How the session that came back stands to what was asked for.

    `fresh` and `forked` are as asked; `continued` kept the parent's id, `rolled` took an
    id of its own. `reset`, an agent that dropped the parent and began anew, shows only in
    the transcript (worker/job/attempt.py looks).
    """
    if parent is None:
        return "fresh"
    if observed == parent:
        return "continued"
    return "forked" if observed == minted else "rolled"
