"""Scenario files are read into rules, and a bad one says what is wrong and where."""

from pathlib import Path

import pytest

from dev.standin import script
from dev.standin.conversation import read
from dev.standin.messages import JSON
from dev.standin.model import Model
from dev.standin.reply import Text, ToolUse, reply
from dev.standin.scenario import (
    Answer,
    BadScenario,
    Rule,
    Say,
    Scenario,
    Think,
    Use,
    load,
    parse,
)
from dev.standin.schema import fit, sample

RECOMMENDATIONS: JSON = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "recommendations": {"type": "array", "items": {"$ref": "#/$defs/R"}},
    },
    "required": ["summary", "recommendations"],
    "additionalProperties": False,
    "$defs": {
        "R": {
            "type": "object",
            "properties": {
                "title": {"type": "string"},
                "reason": {"type": "string"},
                "priority": {"enum": ["high", "medium", "low"]},
            },
            "required": ["title", "reason", "priority"],
        }
    },
}


def asked(prompt: str, *tools: str, schema: JSON | None = None) -> JSON:
    """A request with one prompt and these tools, StructuredOutput among them for a schema."""
    offered = [{"name": t, "input_schema": {"type": "object"}} for t in tools]
    if schema:
        offered.append({"name": "StructuredOutput", "input_schema": schema})
    return {
        "model": "m",
        "max_tokens": 100,
        "tools": offered,
        "messages": [{"role": "user", "content": prompt}],
    }


def rule_for(scenario: Scenario, request: JSON) -> str:
    return reply(scenario, read(request)).rule


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rules: [", "not YAML"),
        ("- a", "the file must be a mapping"),
        ("rules: []", "give it a list of rules"),
        ("rule: []", "the file has no rule"),
        ("rules: [{when: a}]", "rule 1: a rule needs steps"),
        ("rules: [{name: x, when: '(', steps: prompt}]", "rule 1 (x): '(' is not a regular"),
        ("rules: [{steps: [{shout: a}]}]", "rule 1: a step has no shout"),
        ("rules: [{steps: [{say: a, think: 1}]}]", "each step is one of"),
        ("rules: [{steps: [{think: soon}]}]", "think takes seconds, not 'soon'"),
        ("rules: [{steps: [{use: {tool: Write}}]}]", "use needs a tool"),
        ("rules: [{steps: [{say: {$file: no.txt}}]}]", "the file no.txt beside it"),
    ],
)
def test_a_bad_file_gets_one_sentence_that_names_file_and_rule(text: str, sentence: str):
    with pytest.raises(BadScenario) as bad:
        parse(text, name="mine")

    assert str(bad.value).startswith("Scenario mine")
    assert sentence in str(bad.value)
    assert "\n" not in str(bad.value)


def test_an_unknown_scenario_is_refused_with_the_names_of_the_known():
    with pytest.raises(BadScenario, match="demo, hostile, plain"):
        load("nothing")


def test_files_beside_the_scenario_are_read_into_the_steps(tmp_path: Path):
    (tmp_path / "page.html").write_text("<p>{cwd} {unknown}</p>")
    (tmp_path / "mine.yaml").write_text(
        "rules: [{steps: [{use: {tool: Write, input: {content: {$file: page.html}}}}]}]"
    )
    made = reply(load(tmp_path / "mine.yaml"), read(asked("x", "Write")))

    assert [p.input for p in made.parts if isinstance(p, ToolUse)] == [
        {"content": "<p> {unknown}</p>"}
    ]


def test_the_first_rule_that_fits_answers():
    scenario = parse(
        """
        rules:
          - {name: tool, when: blue, offered: Bash, steps: [{say: a}]}
          - {name: seen, when: BLUE, saw: sky, steps: [{say: a}]}
          - {name: plain, when: blue, steps: [{say: a}]}
          - {name: rest, steps: [{say: a}]}
        """,
        name="mine",
    )
    again = asked("blue")
    again["messages"].insert(0, {"role": "assistant", "content": "The sky."})

    assert rule_for(scenario, asked("make it blue", "Bash")) == "tool"
    assert rule_for(scenario, again) == "seen"
    assert rule_for(scenario, asked("blue")) == "plain"
    assert rule_for(scenario, asked("red")) == "rest"


def test_a_prompt_can_say_itself_what_is_to_be_done():
    steps = script.steps(
        "Please:\nwrite a/b.txt: one\\ntwo\n- read a/b.txt\nedit a/b.txt: one => three\n"
        'run: ls -l\nsleep 0.5\nanswer {"a": 1}\nuse Glob {"pattern": "*"}\nsay that: was it\nThank you.'
    )
    assert steps == (
        Use((("Write", {"file_path": "{cwd}/a/b.txt", "content": "one\ntwo"}),)),
        Use((("Read", {"file_path": "{cwd}/a/b.txt"}),)),
        Use(
            (
                (
                    "Edit",
                    {"file_path": "{cwd}/a/b.txt", "old_string": "one", "new_string": "three"},
                ),
            )
        ),
        Use((("Bash", {"command": "ls -l", "description": "As the prompt says"}),)),
        Think(0.5, real=True),
        Answer({"a": 1}),
        Use((("Glob", {"pattern": "*"}),)),
        Say("that: was it"),
    )


def test_calls_of_tools_that_are_not_offered_are_left_out():
    rule = Rule("r", None, None, None, (Use((("Write", {}),)), Say("Done.")))
    made = reply(Scenario("s", (rule,)), read(asked("x")))

    assert made.parts == (Text("Done."),)


@pytest.mark.parametrize("scenario", ["demo", "plain"])
def test_a_schema_is_always_answered_through_its_tool(scenario: str):
    made = reply(load(scenario), read(asked("Your recommendations", schema=RECOMMENDATIONS)))
    (call,) = [p for p in made.parts if isinstance(p, ToolUse)]

    assert call.tool == "StructuredOutput"
    assert set(call.input) == {"summary", "recommendations"}
    assert {r["priority"] for r in call.input["recommendations"]} <= {"high", "medium", "low"}


def test_made_up_values_satisfy_their_schema():
    schema: JSON = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 3},
            "when": {"type": "string", "format": "date"},
            "maybe": {"anyOf": [{"type": "integer", "minimum": 5}, {"type": "null"}]},
            "list": {"type": "array", "items": {"const": 7}, "minItems": 2},
            "yes": {"type": ["boolean", "null"]},
        },
    }
    assert sample(schema) == {
        "name": "A n",
        "when": "2026-01-01",
        "maybe": 5,
        "list": [7, 7],
        "yes": True,
    }


def test_data_is_fitted_to_a_schema_that_wants_more_or_less():
    data = {
        "summary": "s",
        "more": 1,
        "recommendations": [{"title": "t", "priority": "urgent"}],
    }

    assert fit(data, RECOMMENDATIONS) == {
        "summary": "s",
        "recommendations": [{"title": "t", "reason": "A reason", "priority": "high"}],
    }


@pytest.mark.parametrize(
    ("prompt", "rule"),
    [
        ("Build a small website for a trail guide: an overview and a packing list.", "build"),
        ("A website for our club, please", "first wish, whatever it is"),
        ("Add a contact page and make the header dark green.", "contact page and green header"),
        ("What did we change last, and why?", "question"),
        (
            "<chat-plan>\nNo changes.\n</chat-plan>\nWhat did we change last, and why?",
            "question",
        ),
        (
            "<project-history>\nA site.\n</project-history>\nAdd a contact page.",
            "contact page and green header",
        ),
        ("Write the documentation to the file DOCUMENTATION.md.", "documentation"),
    ],
)
def test_the_demo_knows_its_prompts(prompt: str, rule: str):
    assert rule_for(load("demo"), asked(prompt, "Write", "Read", "Edit", "Bash")) == rule


def test_the_demo_takes_about_half_a_minute():
    scenario = load("demo")
    spent = {
        r.name: sum(s.seconds for s in r.steps or () if isinstance(s, Think))
        for r in scenario.rules
    }
    names = ["build", "recommendations", "documentation", "contact page and green header"]
    names += ["recommendations after the contact page", "documentation after the contact page"]
    total = sum(spent[n] for n in [*names, "question"]) + 2 * scenario.summary_think

    assert 30 <= total <= 40


def test_the_clis_small_questions_do_not_reach_the_scenario():
    title: JSON = {"type": "object", "properties": {"title": {"type": "string"}}}
    request = asked("<session>\nfix the broken login page please\n</session>") | {
        "output_config": {"format": {"type": "json_schema", "schema": title}}
    }
    model = Model(load("plain"))
    seen, said, _ = model.see(request, key="k", session="")
    _, made, _ = model.answer(seen, said)

    assert seen.kind == "side"
    assert made.parts == (Text('{"title": "fix the broken login page"}'),)


def test_a_tool_that_is_asked_for_by_name_is_called():
    request = asked("hello", "Write", "Read") | {
        "tool_choice": {"type": "tool", "name": "Read"}
    }
    model = Model(parse("rules: [{steps: [{say: hi}]}]", name="mine"))
    seen, said, _ = model.see(request, key="k", session="")
    _, made, _ = model.answer(seen, said)

    assert [p.tool for p in made.parts if isinstance(p, ToolUse)] == ["Read"]
