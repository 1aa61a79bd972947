"""The stand-in model itself, without a wire: requests in, replies or faults out, a log of both."""

import hashlib
import itertools
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from dev.standin import cache, conversation, summary
from dev.standin.conversation import Conversation
from dev.standin.faults import Fault, Faults
from dev.standin.messages import JSON, message_blocks, texts, tools
from dev.standin.reply import Reply, Text, call, done, going_on, reply
from dev.standin.scenario import Scenario, Think
from dev.standin.schema import fit, sample

REMEMBERED = 2000  # requests in the log
LIMIT = 200_000  # tokens of context, as most models have
SESSION = re.compile(r"<session>(.*?)</session>", re.DOTALL)  # what the CLI wants a title for
DEADLINE = 10.0  # seconds that wait_for waits


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as the model saw it.

    `kind` is turn, compaction or side (the CLI's own small questions); `at` seconds since
    the epoch; `prompts` the users' prompts, oldest first, those told by a compaction's
    summary included; `usage` None where a fault kept the model from working; `fault` the
    kind of it; `key` a hash of the API key; `session` the CLI's session id.
    """

    id: str
    at: float
    kind: str
    model: str
    messages: int
    prompts: tuple[str, ...]
    history: str
    tools: tuple[str, ...]
    system: str
    cwd: str
    session: str
    key: str
    rule: str = ""
    usage: JSON | None = None
    fault: str | None = None
    body: JSON = field(default_factory=dict[str, Any], repr=False)

    @property
    def prompt(self) -> str:
        return self.prompts[-1] if self.prompts else ""


class Model:
    """Answers requests by a scenario, keeps the prompt cache, the faults and the log."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        clock: Callable[[], float] = time.monotonic,
        minimum: int = cache.MINIMUM,
        limit: int = LIMIT,
    ) -> None:
        self.scenario = scenario
        self.faults = Faults()
        self.limit = limit
        self.unknown: list[str] = []  # method and path of requests that nothing answers
        self._cache = cache.PromptCache(clock=clock, minimum=minimum)
        self._log: deque[Seen] = deque(maxlen=REMEMBERED)
        self._more = threading.Condition()
        self._numbers = itertools.count(1)

    @property
    def requests(self) -> tuple[Seen, ...]:
        """Every request for a message so far, the oldest first."""
        with self._more:
            return tuple(self._log)

    def wait_for(self, wanted: Callable[[Seen], bool], *, timeout: float = DEADLINE) -> Seen:
        """The first request that is wanted, waiting for it up to `timeout` seconds."""
        with self._more:
            self._more.wait_for(lambda: any(map(wanted, self._log)), timeout)
            found = next(filter(wanted, self._log), None)
        if found is None:
            raise TimeoutError(f"no such request within {timeout:g} s")
        return found

    def see(
        self, request: JSON, *, key: str, session: str
    ) -> tuple[Seen, Conversation, Fault | None]:
        """Take note of a request, and of the fault that it meets."""
        said = conversation.read(request)
        seen = Seen(
            id=f"req_standin_{next(self._numbers):06}",
            at=time.time(),
            kind=kind(request, said),
            model=str(request.get("model")),
            messages=len(request.get("messages") or []),
            prompts=said.prompts,
            history=said.history,
            tools=tuple(str(t.get("name")) for t in tools(request)),
            system=texts(request.get("system")),
            cwd=said.cwd,
            session=session,
            key=hashlib.sha256(key.encode()).hexdigest()[:12],
            body=request,
        )
        if seen.kind == "side":
            return seen, said, None
        fault = self.faults.take(kind=seen.kind, prompt=seen.prompt, model=seen.model)
        if fault is None and cache.count(request) > self.limit:
            fault = Fault("too_long")
        return seen, said, fault

    def answer(self, seen: Seen, said: Conversation) -> tuple[Seen, Reply, cache.Usage]:
        """The reply, its input accounted for."""
        usage = self._cache.charge(seen.body, key=seen.key)
        made = self._reply(seen, said)
        return replace(seen, rule=made.rule), made, usage

    def note(self, seen: Seen) -> None:
        """Put a request into the log."""
        with self._more:
            self._log.append(seen)
            self._more.notify_all()

    def _reply(self, seen: Seen, said: Conversation) -> Reply:
        if seen.kind == "compaction":
            return self._summary(said)
        if seen.kind == "side":
            return Reply((Text(side_answer(seen.body)),), "side")
        choice: JSON = seen.body.get("tool_choice") or {}
        if choice.get("type") == "none":
            said = replace(said, tools=())
        return obliged(reply(self.scenario, said), choice, said)

    def _summary(self, said: Conversation) -> Reply:
        said = going_on(self.scenario, said)
        steps = done(said.exchanges[-1]) if said.exchanges else 0
        text = summary.summary(said, steps=steps)
        return Reply((Think(self.scenario.summary_think), Text(text)), "compaction")


def kind(request: JSON, said: Conversation) -> str:
    """What a request is for: turn, compaction or side."""
    if said.compaction:
        return "compaction"
    small = int(request.get("max_tokens") or 0) == 1
    return "side" if small or (_format(request) and not said.tools) else "turn"


def side_answer(request: JSON) -> str:
    """An answer to the CLI's small questions: in the format asked for, or one word."""
    schema: JSON = _format(request).get("schema") or {}
    asked = SESSION.search("\n".join(b.text for b in message_blocks(request)))
    if asked:
        return json.dumps(fit({"title": " ".join(asked[1].split()[:5])}, schema))
    return json.dumps(sample(schema)) if schema else "OK"


def _format(request: JSON) -> JSON:
    """The output format that the API itself is asked to keep; the agent's turns ask for none."""
    config: JSON = request.get("output_config") or {}
    return config.get("format") or {}


def obliged(made: Reply, choice: JSON, said: Conversation) -> Reply:
    """The reply, or a call of the tool that `tool_choice` obliges the model to make."""
    if choice.get("type") not in ("tool", "any") or made.stop_reason == "tool_use":
        return made
    tool = (
        said.tool(str(choice.get("name"))) if "name" in choice else next(iter(said.tools), None)
    )
    if tool is None:
        return made
    put: JSON = sample(tool.get("input_schema") or {"type": "object"})
    return replace(made, parts=(call(0, str(tool["name"]), put, said),))
