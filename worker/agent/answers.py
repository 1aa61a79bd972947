"""Answers of a given form: a tool that every turn is offered, whether it is asked for one or not.

A tool that only some turns have changes the list of tools, and with it every prompt that the
provider's cache holds (docs/decisions/0028). So the tool is always there, loaded from the start;
a turn that was asked for nothing is told so.

    prompt names the tool ─► called ─► of the form: taken
                               └─► not of it: the tool's error says what is wrong, once
    answered in words     ─► JSON in them that is of the form counts as well (found_in)
    neither               ─► once more, through the CLI's own tool for it (ENFORCED)
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from worker.failures.errors import AgentFailed

SERVER, TOOL = "baton", "recommend"
NAME = f"mcp__{SERVER}__{TOOL}"  # as the model and the CLI's rules call it
ENFORCED = "StructuredOutput"  # the CLI's own, which it has only where it is given a schema
GIVEN_BY = {NAME, ENFORCED}
TRIES = 2  # of one turn: the answer, and once more after the tool's error
PLACES = 50  # in a text, at which JSON is looked for
MISSING = "structured_output_missing"  # no answer, or in words alone
EXHAUSTED = "structured_output_retry_exhausted"
FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n\s*```", re.DOTALL)


class Recommendation(BaseModel):
    """One thing to do next, and why."""

    model_config = ConfigDict(extra="ignore")
    title: str
    reason: str
    priority: Literal["high", "medium", "low"]


class Recommendations(BaseModel):
    """What the agent recommends for a project."""

    model_config = ConfigDict(extra="ignore")
    summary: str
    recommendations: list[Recommendation]


def server(*, wanted: bool) -> dict[str, Any]:
    """The server of the tool, for the CLI. `wanted`: this turn is asked for such an answer."""
    from claude_agent_sdk import create_sdk_mcp_server, tool

    @tool(
        TOOL,
        "Takes recommendations for a project. Use it only when a prompt asks for it by name.",
        Recommendations.model_json_schema(),
    )
    async def take(given: dict[str, Any]) -> dict[str, Any]:
        if not wanted:
            return _told("Nobody has asked for recommendations: answer in words.", wrong=True)
        try:
            Recommendations.model_validate(given)
        except ValidationError as exc:
            return _told(_sentence(exc), wrong=True)
        return _told("Taken.")

    made: dict[str, Any] = {**create_sdk_mcp_server(SERVER, tools=[take])}
    return made | {"alwaysLoad": True}  # else the model would have to search for it first


def _told(text: str, *, wrong: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "is_error": wrong}


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"Not of the form that was asked for: {where}: {first['msg']}."


def fits(given: Any) -> bool:
    """Whether it is of the form."""
    try:
        Recommendations.model_validate(given)
    except ValidationError:
        return False
    return True


def validated(structured: Any, text: str) -> Recommendations:
    """The answer, given through the tool or in words. Raises AgentFailed if there is none."""
    found = found_in(text) if structured is None else [structured]
    if (answer := next(filter(fits, found), None)) is None:
        raise missing(MISSING if structured is None else EXHAUSTED)
    return Recommendations.model_validate(answer)


def missing(kind: str = MISSING) -> AgentFailed:
    """The failure of a turn without an answer of the form that was asked for."""
    return AgentFailed(
        kind,
        "The agent's answer is not of the form that was asked for.",
        ending=EXHAUSTED,
    )


def found_in(text: str) -> Iterator[Any]:
    """Objects in JSON that a text has: all of it, in fences, or among its words."""
    for part in (text, *FENCED.findall(text)):
        try:
            yield json.loads(part)
        except ValueError:
            continue
    at = -1
    for _ in range(PLACES):
        if (at := text.find("{", at + 1)) < 0:
            return
        try:
            found, at = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            continue
        yield found
