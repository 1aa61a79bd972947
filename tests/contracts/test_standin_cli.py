"""The real Claude Code CLI works with the stand-in as it does with the model it stands in for.

What is relied on here of the CLI (version 2.1.332 of claude-agent-sdk 0.2.189) is written
down in docs/standin.md; a newer CLI that behaves otherwise fails one of these tests. Its failures:
test_error_table.py.
"""

import asyncio
import json
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKError,
    Message,
    ResultMessage,
    SystemMessage,
    query,
)

from dev.standin.model import Seen
from dev.standin.server import Standin, standin
from worker.agent import answers

RECOMMENDATIONS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "recommendations": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "reason": {"type": "string"},
                    "priority": {"type": "string", "enum": ["high", "medium", "low"]},
                },
                "required": ["title", "reason", "priority"],
            },
        },
    },
    "required": ["summary", "recommendations"],
}


@dataclass(frozen=True)
class Turn:
    """What one run of the CLI said, and what the model was asked in it."""

    messages: list[Message]
    error: ClaudeSDKError | None
    asked: tuple[Seen, ...]

    @property
    def result(self) -> ResultMessage:
        return next(m for m in reversed(self.messages) if isinstance(m, ResultMessage))

    @property
    def text(self) -> str:
        return str(self.result.result)

    @property
    def kinds(self) -> list[str]:
        return [m.subtype for m in self.messages if isinstance(m, SystemMessage)]


Run = Callable[..., Turn]


@pytest.fixture
def model() -> Iterator[Standin]:
    with standin(scenario="plain") as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Path:
    place = tmp_path / "site"
    place.mkdir()
    return place


@pytest.fixture
def run(model: Standin, site: Path, tmp_path: Path) -> Run:
    """Run the CLI for one prompt; `head` is the session to fork, `change` adds to its environment."""
    env = {
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": "stand-in",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "0",
        "CLAUDE_CONFIG_DIR": str(tmp_path / "config"),
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_TELEMETRY": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",  # nothing listens there: no way out
        "NO_PROXY": "127.0.0.1",
    }

    def once(
        prompt: str,
        *,
        head: str | None = None,
        cwd: Path = site,
        change: dict[str, str] | None = None,
        **more: Any,
    ) -> Turn:
        options = ClaudeAgentOptions(
            cwd=cwd,
            env=env | (change or {}),
            permission_mode="acceptEdits",
            setting_sources=[],
            resume=head,
            fork_session=head is not None,
            stderr=lambda _: None,
            **more,
        )
        return asyncio.run(_drained(prompt, options, model))

    return once


async def _drained(prompt: str, options: ClaudeAgentOptions, model: Standin) -> Turn:
    before, messages, error = len(model.requests), list[Message](), None
    try:
        async for message in query(prompt=prompt, options=options):
            messages.append(message)
    except ClaudeSDKError as failed:
        error = failed
    return Turn(messages, error, model.requests[before:])


def test_a_fresh_turn_writes_a_file_and_runs_a_command(run: Run, site: Path, model: Standin):
    turn = run("Please\nwrite notes/a.txt: hello\nrun: cp notes/a.txt b.txt\nsay done")

    assert (site / "b.txt").read_text() == "hello"
    assert turn.text == "done"
    assert {s.cwd for s in turn.asked} == {str(site)}
    assert model.unknown == ()


@pytest.mark.parametrize(
    "name", ["claude-haiku-4-5", pytest.param("claude-sonnet-4-5", marks=pytest.mark.long)]
)
def test_models_that_are_told_of_their_directory_in_other_words_find_it_too(
    run: Run, site: Path, name: str
):
    run("write a.txt: old")
    again = run("write a.txt: new", model=name)  # unread: the CLI refuses until it was read

    assert (site / "a.txt").read_text() == "new"
    assert again.asked[0].model == name


def test_a_forked_turn_sees_the_earlier_prompts_and_reads_the_cache(run: Run):
    first = run("write a.txt: one\nsay first")
    second = run("What did we do?", head=first.result.session_id)
    (seen,) = second.asked

    assert seen.prompts == ("write a.txt: one\nsay first", "What did we do?")
    assert "wrote a.txt" in second.text
    assert second.result.session_id != first.result.session_id
    assert second.result.usage is not None
    assert second.result.usage["cache_read_input_tokens"] > 1024


@pytest.mark.long
def test_a_session_that_moves_is_told_its_new_directory(run: Run, tmp_path: Path):
    first = run("say first")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    run("write a.txt: moved", head=first.result.session_id, cwd=elsewhere)

    assert (elsewhere / "a.txt").read_text() == "moved"


def test_a_compaction_sets_a_boundary_and_what_was_asked_is_still_known(run: Run):
    first = run("write a.txt: one\nsay " + "many words " * 200)
    compacted = run("/compact", head=first.result.session_id)
    after = run("What did we do?", head=compacted.result.session_id)
    boundary = next(
        m.data["compact_metadata"]
        for m in compacted.messages
        if isinstance(m, SystemMessage) and m.subtype == "compact_boundary"
    )

    assert [s.kind for s in compacted.asked] == ["compaction"]
    assert boundary["post_tokens"] < boundary["pre_tokens"]
    assert after.asked[0].prompts[0].startswith("write a.txt: one")
    assert "wrote a.txt" in after.text


def test_a_prompt_that_is_too_long_is_compacted_in_the_middle_of_a_turn(
    run: Run, site: Path, model: Standin
):
    first = run("write a.txt: one")
    model.fault("too_long", on="turn", after=1)
    turn = run("write b.txt: 1\nwrite c.txt: 2\nsay end", head=first.result.session_id)

    assert "compact_boundary" in turn.kinds
    assert turn.text == "end"
    assert [s.rule for s in turn.asked].count("script") == 3
    assert sorted(p.name for p in site.iterdir()) == ["a.txt", "b.txt", "c.txt"]


def test_a_structured_answer_comes_back_validated(run: Run):
    schema = {"type": "json_schema", "schema": RECOMMENDATIONS}
    made_up = run("Anything.", output_format=schema, tools=[])
    told = run('answer {"summary": "s", "recommendations": []}', output_format=schema)

    assert made_up.result.structured_output["recommendations"][0]["priority"] == "high"
    assert told.result.structured_output == {"summary": "s", "recommendations": []}


def test_an_answer_that_never_fits_its_schema_ends_the_turn(run: Run):
    schema = {"type": "json_schema", "schema": RECOMMENDATIONS}
    turn = run('use StructuredOutput {"wrong": 1}', output_format=schema)

    assert turn.result.terminal_reason == "structured_output_retry_exhausted"
    assert len(turn.asked) == 5


def test_an_overload_that_passes_is_retried_by_the_cli(run: Run, model: Standin):
    model.fault("529", times=1)
    turn = run("say hello", change={"CLAUDE_CODE_MAX_RETRIES": "1"})

    assert turn.text == "hello"
    assert [s.fault for s in turn.asked] == ["529", None]


def test_a_stream_that_is_cut_once_recovers(run: Run, model: Standin):
    model.fault("cut", times=1)
    turn = run("say hello")

    assert turn.text == "hello"
    assert [bool(s.body.get("stream")) for s in turn.asked] == [True, False]


def test_an_answer_that_never_comes_ends_at_the_clis_own_time_limit(run: Run, model: Standin):
    model.fault("hang", times=-1)
    turn = run("say hello", change={"API_TIMEOUT_MS": "500"})

    assert (turn.result.terminal_reason, turn.result.api_error_status) == ("api_error", None)
    assert "timed out" in turn.text


def test_a_stopped_model_refuses_connections(run: Run, model: Standin):
    model.stop()
    turn = run("say hello")

    assert (turn.result.terminal_reason, turn.result.api_error_status) == ("api_error", None)


@pytest.mark.long
def test_the_demo_builds_a_site_whose_links_lead_somewhere(
    run: Run, site: Path, model: Standin
):
    model.use("demo")
    schema = {"type": "json_schema", "schema": RECOMMENDATIONS}

    def metadata_and_compaction(head: str, sentence: str) -> str:
        told = run("Give your recommendations.", head=head, output_format=schema)
        assert sentence in told.result.structured_output["summary"]
        head = told.result.session_id
        head = run("Write it to the file DOCUMENTATION.md.", head=head).result.session_id
        compacted = run("/compact", head=head)
        assert "compact_boundary" in compacted.kinds
        return compacted.result.session_id

    built = run("Build a small website for a trail guide: an overview and a packing list.")
    head = metadata_and_compaction(built.result.session_id, "two static pages")
    update = run("Add a contact page and make the header dark green.", head=head)
    mended = run("packing.html has no link to contact.html", head=update.result.session_id)
    head = metadata_and_compaction(mended.result.session_id, "three pages")
    answer = run("What did we change last, and why?", head=head)

    assert "Not everything worked" not in built.text + update.text + mended.text
    assert "Add a contact page and make the header dark green." in answer.text
    assert "Build a small website" in answer.text
    assert "contact.html" in (site / "DOCUMENTATION.md").read_text()
    assert "--header: #14432a" in (site / "style.css").read_text()
    for page in site.glob("*.html"):
        links = re.findall(r'(?:href|src)="([^":]+)"', page.read_text())
        assert "contact.html" in links
        assert [x for x in links if not (site / x).is_file()] == []


def test_a_base_url_is_taken_for_anthropics_own_where_the_cli_is_told_so(run: Run):
    """What is lost by a base URL alone, and comes back: docs/decisions/0022."""
    ours: Any = {"system_prompt": {"type": "preset", "preset": "claude_code"}}
    assumed = {"_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL": "1"}
    (alone,) = run("say hello", **ours).asked
    (told,) = run("say hello", change=assumed, **ours).asked
    assert ("diagnostics" in alone.body, "diagnostics" in told.body) == (False, True)
    assert len(told.body["system"]) > len(alone.body["system"])
    assert told.tools == alone.tools


def test_for_a_bearer_the_cli_asks_anthropic_nothing_of_its_own_before_a_turn(run: Run):
    """As the bridge gives the turn's token (worker/sandbox/bridge.py). For a key it asks what the
    organization allows, and is 5 s late where nobody lets it; the model is asked the same."""
    assumed = {"_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL": "1"}
    with socket.create_server(("127.0.0.1", 0)) as way_out:
        way_out.setblocking(False)
        proxied = assumed | {"HTTPS_PROXY": f"http://127.0.0.1:{way_out.getsockname()[1]}"}
        (bearing,) = run(
            "say hello",
            change=proxied | {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "stand-in"},
        ).asked
        with pytest.raises(BlockingIOError):
            way_out.accept()
        (keyed,) = run("say hello", change=proxied).asked
        way_out.accept()[0].close()  # or the bridge need not do this any more
    assert bearing.key == keyed.key
    assert bearing.tools == keyed.tools
    assert bearing.body["system"][1:] == keyed.body["system"][1:]
    assert bearing.body.keys() == keyed.body.keys()


def test_for_a_bearer_the_model_is_asked_the_same_as_for_a_key(run: Run):
    """But for a beta in a header, which the proxy takes out (egress/model.py): nothing in the body
    depends on it, be it a result of the CLI's tool or of one of ours."""

    ours: Any = {
        "mcp_servers": {answers.SERVER: answers.server(wanted=True)},
        "allowed_tools": ["Bash", answers.NAME],
    }
    assumed = {"_CLAUDE_CODE_ASSUME_FIRST_PARTY_BASE_URL": "1"}
    bearer = {"ANTHROPIC_API_KEY": "", "ANTHROPIC_AUTH_TOKEN": "stand-in"}
    taken = '{"summary": "two", "recommendations": []}'
    prompt = f"run: echo one\nuse {answers.NAME} {taken}\nsay three"
    keyed = run(prompt, change=assumed, **ours)
    bearing = run(prompt, change=assumed | bearer, **ours)
    assert "Taken." in json.dumps(keyed.asked[-1].body)
    assert [_but_ids(s.body) for s in bearing.asked] == [_but_ids(s.body) for s in keyed.asked]


def _but_ids(body: dict[str, Any]) -> str:
    """A request's body without what is another each time."""
    return re.sub(
        r"[0-9a-f]{8}-[0-9a-f-]{27}|\b(toolu|req|msg)_\w+|\bcch=\w+|[0-9a-f]{16,}",
        "ID",
        json.dumps(body, sort_keys=True),
    )
