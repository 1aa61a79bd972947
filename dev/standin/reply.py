"""What the model answers: a function of the conversation and the scenario, and of nothing else.

A rule's steps fall into replies, each ending with a tool call; the last has none and ends
the turn. Which reply is due is read from the ids of the calls already made for the prompt
(`toolu_standin_<step>_…`), so a request sent twice is answered alike. Some things a model
does of itself are done here too: it reads a file that the CLI will not let it write
unread, and it makes a call again that was interrupted or whose answer was not valid.
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any, cast

from dev.standin import past, schema, script
from dev.standin.conversation import Conversation, Exchange
from dev.standin.messages import JSON
from dev.standin.scenario import Answer, Rule, Say, Scenario, Step, Think, Use

STRUCTURED = "StructuredOutput"  # the CLI's tool for an answer of a given form
ANSWER = "answer"  # how scenarios call the tool for that, whichever it is
OF_A_SERVER = "mcp__"  # how the names of a caller's own tools begin
TRIES = 3  # of one step, before the model gives it up
UNREAD = re.compile(r"has not been read yet|modified since read", re.IGNORECASE)
INTERRUPTED = re.compile(r"^\[Tool call interrupted", re.IGNORECASE)
PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class ToolUse:
    id: str
    tool: str
    input: JSON


Part = Think | Text | ToolUse


@dataclass(frozen=True, slots=True)
class Reply:
    """One message of the model, with the pauses before its blocks; `rule` made it."""

    parts: tuple[Part, ...]
    rule: str = ""

    @property
    def stop_reason(self) -> str:
        return "tool_use" if any(isinstance(p, ToolUse) for p in self.parts) else "end_turn"


def reply(scenario: Scenario, conversation: Conversation) -> Reply:
    """The answer to a conversation's last prompt."""
    conversation = going_on(scenario, conversation)
    rule, match, steps = find(scenario, conversation)
    wanted = None if rule.in_words else _answer_tool(conversation)
    replies = _replies(steps, conversation, wanted)
    exchange = conversation.exchanges[-1] if conversation.exchanges else Exchange("")
    due = min(done(exchange), len(replies) - 1)
    corrects = any(_answers(step, wanted) for step in replies[due])
    if again := _again(conversation, len(replies) - 1, None if corrects else wanted):
        return Reply((again,), rule.name)
    places = past.places(scenario, conversation) | _groups(match)
    parts = [p for step in replies[due] for p in _part(step, due, places, conversation)]
    if due == len(replies) - 1 and (failures := past.failures(exchange)):
        parts.append(Text(failures))
    return Reply(tuple(parts), rule.name)


def going_on(scenario: Scenario, conversation: Conversation) -> Conversation:
    """The conversation with the prompts left out that only ask to go on with the one before."""
    exchanges: list[Exchange] = []
    for exchange in conversation.exchanges:
        if exchanges and scenario.go_on and scenario.go_on.search(exchange.prompt):
            before = exchanges.pop()
            exchange = replace(before, calls=before.calls + exchange.calls)
        exchanges.append(exchange)
    return replace(conversation, exchanges=tuple(exchanges))


def find(
    scenario: Scenario, conversation: Conversation
) -> tuple[Rule, re.Match[str] | None, tuple[Step, ...]]:
    """The first rule that fits, its match on the prompt, and its steps."""
    for rule in scenario.rules:
        match = rule.when.search(conversation.prompt) if rule.when else None
        if (rule.when and not match) or not _fits(rule, conversation):
            continue
        steps = script.steps(conversation.prompt) if rule.steps is None else rule.steps
        if steps:
            return rule, match, steps
    none = (Say("The scenario has no rule for this prompt."),)
    return Rule("no rule", None, None, None, none), None, none


def _fits(rule: Rule, conversation: Conversation) -> bool:
    wanted = _answer_tool(conversation) if rule.offered == ANSWER else rule.offered
    if rule.offered and not conversation.tool(wanted or ""):
        return False
    works = [past.work(e) for e in conversation.exchanges[:-1]]
    before = "\n".join([conversation.earlier, conversation.history, *works])
    return rule.saw is None or bool(rule.saw.search(before))


def _groups(match: re.Match[str] | None) -> dict[str, str]:
    if not match:
        return {}
    numbered = {str(i): g or "" for i, g in enumerate(match.groups(), 1)}
    return numbered | {k: v or "" for k, v in match.groupdict().items()}


def _replies(
    steps: tuple[Step, ...], conversation: Conversation, wanted: str | None
) -> list[list[Step]]:
    """The steps, cut after each tool call; the last reply has none."""
    replies: list[list[Step]] = [[]]
    for step in _possible(steps, conversation, wanted):
        replies[-1].append(step)
        if isinstance(step, Use | Answer):
            replies.append([])
    if not any(isinstance(s, Say) for s in replies[-1]):
        replies[-1].append(Say("Done."))
    return replies


def _possible(
    steps: tuple[Step, ...], conversation: Conversation, wanted: str | None
) -> list[Step]:
    """The steps without the calls of tools that are not offered, and with the answer asked for."""
    kept = [
        replace(s, calls=tuple(c for c in s.calls if conversation.tool(c[0])))
        if isinstance(s, Use)
        else s
        for s in steps
    ]
    kept = [s for s in kept if not isinstance(s, Use) or s.calls]
    if wanted is None:
        return [_told(s) if isinstance(s, Answer) else s for s in kept]
    if not any(_answers(s, wanted) for s in kept):
        uses = [i for i, s in enumerate(kept) if isinstance(s, Use)]
        kept.insert(uses[-1] + 1 if uses else 0, Answer())
    return kept


def _answer_tool(conversation: Conversation) -> str | None:
    """The tool through which an answer of a given form is wanted: the CLI's, which is there only
    then, or one of the caller's own that the prompt names."""
    if conversation.tool(STRUCTURED):
        return STRUCTURED
    names = [str(tool.get("name")) for tool in conversation.tools]
    ours = [n for n in names if n.startswith(OF_A_SERVER) and n in conversation.prompt]
    return ours[0] if ours else None


def _answers(step: Step, wanted: str | None) -> bool:
    if isinstance(step, Use):
        return any(tool == wanted for tool, _ in step.calls)
    return isinstance(step, Answer)


def _told(answer: Answer) -> Say:
    return Say(json.dumps(answer.data, ensure_ascii=False, indent=2))


def done(exchange: Exchange) -> int:
    """How many replies of the rule have been carried out."""
    steps = [c.step for c in exchange.calls]
    ours = [s for s in steps if s is not None]
    return max(exchange.steps, max(ours) + 1) if ours else exchange.steps + len(steps)


def _again(conversation: Conversation, last_step: int, answers: str | None) -> ToolUse | None:
    """What to do once more, or first, because the last call came to nothing. `answers`: the tool
    whose calls are made again until one is taken."""
    calls = conversation.exchanges[-1].calls if conversation.exchanges else ()
    last = calls[-1] if calls else None
    if last is None or last.step is None or last.step >= last_step:
        return None
    if last.tool == answers and last.failed:  # how often is the CLI's to say
        return call(last.step, last.tool, last.input, conversation)
    same = [c for c in calls if c.step == last.step]
    if len(same) > TRIES:
        return None
    unread = next((c for c in same[::-1] if c.failed and UNREAD.search(c.result or "")), None)
    if INTERRUPTED.search(last.result or ""):
        return call(last.step, last.tool, last.input, conversation)
    if unread is last:
        return call(last.step, "Read", {"file_path": last.path}, conversation)
    if unread and last.tool == "Read" and last.path == unread.path:
        return call(last.step, unread.tool, unread.input, conversation)
    return None


def call(step: int, tool: str, tool_input: JSON, conversation: Conversation) -> ToolUse:
    """A call whose id is new in this conversation, yet the same for the same request."""
    calls = sum(len(e.calls) for e in conversation.exchanges)
    seed = json.dumps([len(conversation.exchanges), calls, tool, tool_input], sort_keys=True)
    mark = hashlib.sha256(seed.encode()).hexdigest()[:12]
    return ToolUse(f"toolu_standin_{step}_{mark}", tool, tool_input)


def _part(
    step: Step,
    due: int,
    places: dict[str, str],
    conversation: Conversation,
) -> list[Part]:
    match step:
        case Think():
            return [step]
        case Say(text):
            return [Text(fill(text, places))]
        case Use(calls):
            return [call(due, tool, fill(put, places), conversation) for tool, put in calls]
        case Answer(data):
            name = _answer_tool(conversation) or STRUCTURED
            return [call(due, name, _answer(name, data, places, conversation), conversation)]


def _answer(name: str, data: Any, places: dict[str, str], conversation: Conversation) -> JSON:
    tool = conversation.tool(name) or {}
    wanted: JSON = tool.get("input_schema") or {}
    return schema.sample(wanted) if data is None else schema.fit(fill(data, places), wanted)


def fill(value: Any, places: dict[str, str]) -> Any:
    """The value with {names} that are known replaced, in every text of it."""
    if isinstance(value, str):
        return PLACE.sub(lambda m: places.get(m[1], m[0]), value)
    if isinstance(value, list):
        return [fill(v, places) for v in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {k: fill(v, places) for k, v in cast(JSON, value).items()}
    return value
