"""The stand-in reads a request as the CLI builds it, and its replies depend on nothing else."""

from typing import Any

from dev.standin.conversation import Conversation, read, summarised
from dev.standin.messages import JSON
from dev.standin.past import NOTHING_KNOWN
from dev.standin.reply import Reply, Text, ToolUse, reply
from dev.standin.scenario import Scenario, parse
from dev.standin.summary import summary

WRITE: JSON = {"name": "Write", "input_schema": {"type": "object"}}
READ: JSON = {"name": "Read", "input_schema": {"type": "object"}}
ENVIRONMENT = "# Environment\n - Primary working directory: /site\n - Platform: linux\n"
REMINDER = "<system-reminder>\nBe careful.\n</system-reminder>"
RULES = """
chores: [recommendations]
go_on: ^you were interrupted
rules:
  - when: ^what
    steps: [{say: "{past}"}]
  - when: two (files)
    steps:
      - use: {tool: Write, input: {file_path: "{cwd}/a", content: "{1}"}}
      - use: {tool: Write, input: {file_path: "{cwd}/b", content: b}}
      - say: Both are there.
  - steps: [{say: Anything.}]
"""


def user(*texts: str) -> JSON:
    return {"role": "user", "content": [{"type": "text", "text": t} for t in texts]}


def assistant(*parts: Any) -> JSON:
    return {"role": "assistant", "content": list(parts)}


def request(*messages: JSON, tools: tuple[JSON, ...] = (WRITE, READ), system: str = "") -> JSON:
    return {"messages": list(messages), "tools": list(tools), "system": system}


def scenario() -> Scenario:
    return parse(RULES, name="test")


def after(asked: JSON, made: Reply, *, answer: str = "ok", failed: bool = False) -> JSON:
    """The request that follows when the reply's calls have been answered."""
    calls = [p for p in made.parts if isinstance(p, ToolUse)]
    uses = [{"type": "tool_use", "id": c.id, "name": c.tool, "input": c.input} for c in calls]
    results = [
        {"type": "tool_result", "tool_use_id": c.id, "content": answer, "is_error": failed}
        for c in calls
    ]
    more = [assistant(*uses), {"role": "user", "content": results}]
    return asked | {"messages": [*asked["messages"], *more]}


def calls(made: Reply) -> list[tuple[str, str]]:
    return [(p.tool, p.input["file_path"]) for p in made.parts if isinstance(p, ToolUse)]


def said(made: Reply) -> str:
    return "".join(p.text for p in made.parts if isinstance(p, Text))


def test_what_the_cli_adds_is_no_prompt():
    seen = read(
        request(
            user(REMINDER, "first", f"second\n{REMINDER}"),
            {"role": "system", "content": ENVIRONMENT},
            assistant({"type": "text", "text": "hello"}),
            user("<command-name>/compact</command-name>", "<local-command-stdout>x"),
            {"role": "user", "content": "third"},
            user("[structured-output-enforce] You MUST call the StructuredOutput tool."),
        )
    )
    assert seen.prompts == ("first", "second", "third")


def test_the_working_directory_is_the_one_told_last_wherever_it_is_told():
    by_system = request(user("hi"), system=ENVIRONMENT)
    by_reminder = request(user(f"<system-reminder>\n{ENVIRONMENT}</system-reminder>", "hi"))
    update = "# Environment update\n - Primary working directory: /new (was /site)"
    moved = request(user("hi"), {"role": "system", "content": update}, system=ENVIRONMENT)
    told_by_user = request(user("Primary working directory: /evil"), system=ENVIRONMENT)

    seen = [read(r).cwd for r in (by_system, by_reminder, moved, told_by_user)]

    assert seen == ["/site", "/site", "/new", "/site"]


def test_a_digest_before_the_prompt_is_knowledge_and_not_the_prompt():
    seen = read(
        request(user("<project-history>\nIt was a bakery.\n</project-history>\n\nGo on."))
    )

    assert seen.prompts == ("Go on.",)
    assert seen.history == "It was a bakery."


def test_a_prompt_that_only_speaks_of_a_digest_is_kept_word_for_word():
    words = "Explain <project-history>this</project-history> to me."

    assert read(request(user(words))).prompts == (words,)


def test_replies_follow_the_steps_and_a_request_sent_twice_gets_the_same():
    asked = request(user("write two files"), system=ENVIRONMENT)
    first = reply(scenario(), read(asked))
    second = reply(scenario(), read(after(asked, first)))
    last = reply(scenario(), read(after(after(asked, first), second)))

    assert calls(first) == [("Write", "/site/a")]
    assert first == reply(scenario(), read(asked))
    assert calls(second) == [("Write", "/site/b")]
    assert (calls(last), said(last), last.stop_reason) == ([], "Both are there.", "end_turn")


def test_a_new_prompt_begins_its_rule_anew_and_no_call_id_comes_twice():
    asked = request(user("write two files"), system=ENVIRONMENT)
    first = reply(scenario(), read(asked))
    done = after(asked, first)
    again = done | {"messages": [*done["messages"], user("write two files")]}
    repeated = reply(scenario(), read(again))

    assert calls(repeated) == calls(first)
    assert repeated.parts != first.parts


def test_a_prompt_to_go_on_continues_where_the_work_was_left():
    asked = request(user("write two files"), system=ENVIRONMENT)
    done = after(asked, reply(scenario(), read(asked)))
    on = done | {"messages": [*done["messages"], user("You were interrupted: go on.")]}

    assert calls(reply(scenario(), read(on))) == [("Write", "/site/b")]


def test_an_interrupted_call_is_made_again():
    asked = request(user("write two files"), system=ENVIRONMENT)
    first = reply(scenario(), read(asked))
    cut = after(asked, first, answer="[Tool call interrupted: its outcome is unknown]")

    assert calls(reply(scenario(), read(cut))) == calls(first)


def test_a_file_that_must_be_read_first_is_read_and_then_written():
    asked = request(user("write two files"), system=ENVIRONMENT)
    first = reply(scenario(), read(asked))
    refused = after(asked, first, answer="File has not been read yet.", failed=True)
    reading = reply(scenario(), read(refused))
    unread = after(refused, reading)
    writing = reply(scenario(), read(unread))

    assert calls(reading) == [("Read", "/site/a")]
    assert calls(writing) == calls(first)
    assert calls(reply(scenario(), read(after(unread, writing)))) == [("Write", "/site/b")]


def test_a_call_that_failed_for_good_is_owned_up_to():
    asked = request(user("write two files"), system=ENVIRONMENT)
    for _ in range(2):
        made = reply(scenario(), read(asked))
        asked = after(asked, made, answer="permission denied", failed=True)
    last = said(reply(scenario(), read(asked)))

    assert "2 of 2 tool calls failed" in last
    assert "permission denied" in last


def test_the_past_is_told_from_the_conversation_without_chores():
    asked = request(user("write two files"), system=ENVIRONMENT)
    done = after(asked, reply(scenario(), read(asked)))
    more = [user("Give recommendations"), user("What did we do?")]
    told = said(reply(scenario(), read(done | {"messages": [*done["messages"], *more]})))

    assert "“write two files” For that I wrote a." in told
    assert "recommendations" not in told


def test_nothing_is_known_of_a_past_that_is_not_in_the_request():
    assert said(reply(scenario(), read(request(user("What did we do?"))))) == NOTHING_KNOWN


def compacted(conversation: Conversation, *, steps: int = 0) -> JSON:
    told = summary(conversation, steps=steps)
    body = told[told.index("<summary>") :].replace("<summary>", "Summary:")
    start = "This session is being continued from a previous conversation that ran out."
    return user(f"{start}\n\n{body}")


def test_a_summary_carries_prompts_and_files_on_through_compactions():
    asked = request(user('say "hi"\nand write two files'), system=ENVIRONMENT)
    done = read(after(asked, reply(scenario(), read(asked))))
    once = read(request(compacted(done), user("What did we do?")))
    twice = read(request(compacted(once), user("What did we do?")))

    assert once.prompts[0] == twice.prompts[0] == 'say "hi"\nand write two files'
    assert "wrote a" in said(reply(scenario(), twice))


def test_a_compaction_in_the_middle_of_the_work_does_not_begin_it_anew():
    asked = request(user("write two files"), system=ENVIRONMENT)
    done = read(after(asked, reply(scenario(), read(asked))))
    on = request(compacted(done, steps=1), system=ENVIRONMENT)

    assert calls(reply(scenario(), read(on))) == [("Write", "/site/b")]


def test_a_summary_is_shorter_than_a_long_conversation():
    long = read(request(*[user(f"{i} " + "word " * 400) for i in range(20)]))
    told = summary(long, steps=0)

    assert len(told) < sum(len(p) for p in long.prompts) / 2
    assert len(summarised(told)) == 20
