"""An answer of a given form: through the tool, or in words that have it in JSON."""

import json
from typing import Any

import pytest
from claude_agent_sdk import AssistantMessage, ToolResultBlock, ToolUseBlock, UserMessage

from tests.unit.test_listening import CWD, quiet
from worker.agent import answers
from worker.agent.failures import Report
from worker.agent.listening import note
from worker.failures.errors import AgentFailed

GOOD: dict[str, Any] = {
    "summary": "A site.",
    "recommendations": [{"title": "Test", "reason": "Nothing is.", "priority": "high"}],
}
TOLD = json.dumps(GOOD, indent=2)


@pytest.mark.parametrize(
    "text",
    [
        TOLD,
        f"Here they are:\n\n```json\n{TOLD}\n```\nTell me what you think.",
        f"```\n{TOLD}\n```",
        f"I looked at {{a}} and {{'b': 1}}. {TOLD} That is all.",
        f'First {{"summary": "no"}}, then {TOLD}',
    ],
)
def test_an_answer_in_words_counts_where_its_json_is_of_the_form(text: str):
    assert answers.validated(None, text).model_dump() == GOOD


@pytest.mark.parametrize(
    ("given", "text", "kind"),
    [
        (None, "", answers.MISSING),
        (None, "Test it {soon}.", answers.MISSING),
        (None, "{" * 100_000, answers.MISSING),
        (None, json.dumps({"summary": "x"}), answers.MISSING),
        ({"summary": 1}, TOLD, answers.EXHAUSTED),
    ],
)
def test_what_is_of_another_form_is_no_answer(given: Any, text: str, kind: str):
    with pytest.raises(AgentFailed) as failed:
        answers.validated(given, text)
    assert (failed.value.kind, failed.value.ending) == (kind, answers.EXHAUSTED)


def heard(name: str, given: Any, *, times: int = 1, wanted: bool = True) -> Report:
    """What is known of a turn whose agent called a tool so, and was refused each time."""
    report, watch = Report(wanted=wanted), quiet()
    for call in map(str, range(times)):
        asked = AssistantMessage(content=[ToolUseBlock(call, name, given)], model="m")
        note(asked, watch, report, CWD)
        note(UserMessage(content=[ToolResultBlock(call, "no", True)]), watch, report, CWD)
    return report


def test_an_answer_through_a_tool_that_was_not_offered_counts_as_well():
    assert heard(answers.ENFORCED, GOOD).answer == GOOD
    assert heard(answers.ENFORCED, {"summary": 1}, times=3).answer is None


def test_an_answer_is_asked_for_twice_in_one_turn_and_no_more():
    once, twice = (heard(answers.NAME, {"summary": 1}, times=n) for n in (1, 2))
    assert once.limited is None
    assert twice.limited
    assert twice.limited.kind == answers.EXHAUSTED


def test_a_turn_that_was_asked_for_no_answer_is_not_ended_by_one():
    report = heard(answers.NAME, {"summary": 1}, times=3, wanted=False)
    assert (report.limited, report.answer) == (None, None)
