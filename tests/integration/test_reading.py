"""A turn that only reads runs nothing, writes nothing, and reads in its workspace only."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dev.standin.model import Seen
from tests.machine import needs_bubblewrap
from tests.running import AtWork
from worker.agent import answers

SECRET = "pl4nted"
# Every tool that an agent is offered. In a turn that reads, those of the first line work as they are,
# the others are refused or change nothing outside of the turn.
READING = {"Read", "Glob", "Grep", "Agent"}
REFUSED = {"Bash", "Edit", "Write"}
OF_THE_TURN = {"SendMessage", "DeferredToolPlaceholder", answers.NAME}


def use(tool: str, **given: Any) -> str:
    return f"use {tool} {json.dumps(given)}"


def looks_outside(outside: Path) -> list[str]:
    """Calls that look for the secret outside of the workspace."""
    places = (
        str(outside),
        f"../../../{outside.name}",
        "link",
        "way",
        "~",
        "/proc/self/root/etc",
    )
    return [
        use("Read", file_path=f"{outside}/secret.txt"),
        use("Read", file_path="link"),
        use("Read", file_path="way/secret.txt"),
        use("Read", file_path="~/secret.txt"),
        *(use("Grep", pattern="pl4nte.", path=at, output_mode="content") for at in places),
        *(use("Glob", pattern="*", path=at) for at in places if at != "link"),
        use("Glob", pattern=f"{outside}/*"),
        use("Glob", pattern="~/*"),
    ]


INSIDE = [
    use("Read", file_path="a.txt"),
    use("Grep", pattern="in.ide", output_mode="content"),
    use("Grep", pattern="in.ide", path="deep"),
    use("Glob", pattern="**/*.md"),
]


def lay(at_work: AtWork, tmp_path: Path) -> Path:
    """A workspace that is a repository whose configuration runs a program, and a secret outside."""
    outside, home, place = tmp_path / "outside", tmp_path / "home", at_work.place
    outside.mkdir()
    (place / "deep").mkdir(parents=True)
    for secret in (outside / "secret.txt", home / "secret.txt"):
        secret.write_text(SECRET)
    (place / "link").symlink_to(outside / "secret.txt")
    (place / "way").symlink_to(outside)
    (place / "a.txt").write_text("inside")
    (place / "deep" / "b.md").write_text("inside")
    git = ("git", "-C", str(place), "-c", "user.name=a", "-c", "user.email=a@localhost")
    for words in ("init -q", "add -A", "commit -qm x", "config core.fsmonitor ./deep/run.sh"):
        subprocess.run([*git, *words.split()], check=True)
    (place / "deep" / "run.sh").write_text(f"#!/bin/sh\ntouch {outside}/ran\n")
    (place / "deep" / "run.sh").chmod(0o755)
    return outside


def results(seen: Seen) -> list[tuple[str, dict[str, Any], str, bool]]:
    """The calls of a conversation: tool, input, what came back, whether that was an error."""
    blocks: list[Any] = [
        block
        for message in seen.body["messages"]
        if not isinstance(message["content"], str)
        for block in message["content"]
    ]
    calls = {block["id"]: block for block in blocks if block["type"] == "tool_use"}
    return [
        (
            calls[block["tool_use_id"]]["name"],
            calls[block["tool_use_id"]]["input"],
            json.dumps(block["content"]),
            bool(block.get("is_error")),
        )
        for block in blocks
        if block["type"] == "tool_result"
    ]


@pytest.mark.parametrize(
    "sandbox", ["off", pytest.param("auto", marks=[needs_bubblewrap, pytest.mark.long])]
)
def test_a_turn_that_reads_runs_nothing_and_reads_in_its_workspace_only(
    at_work: AtWork, tmp_path: Path, sandbox: str
):
    at_work.configure(BATON_SANDBOX=sandbox)
    outside = lay(at_work, tmp_path)
    runs = [
        "run: git status",
        "run: ls",
        use("Bash", command="cat a.txt\ncat a.txt", dangerouslyDisableSandbox=True),
        use("Agent", description="d", prompt="say no", isolation="worktree"),
    ]
    job = at_work.chat("\n".join([*runs, *looks_outside(outside), *INSIDE, "say end"]))
    assert job.state == "done"
    made = results(at_work.model.requests[-1])
    refused, read = made[: -len(INSIDE)], made[-len(INSIDE) :]
    assert len(refused) == len(runs) + len(looks_outside(outside))
    # A pattern may name the home: it is taken for a name in the workspace.
    assert [name for name, _, told, _ in refused if "has been denied" not in told] == ["Glob"]
    assert SECRET not in json.dumps(at_work.model.requests[-1].body)
    assert [error for _, _, _, error in read] == [False] * len(INSIDE)
    assert "b.md" in read[-1][2]
    assert not (outside / "ran").exists()
    assert not (at_work.place / ".claude").exists()


def test_legs_that_read_and_legs_that_work_differ_by_rules_only(
    at_work: AtWork, tmp_path: Path
):
    at_work.configure(BATON_SANDBOX="off")
    outside = lay(at_work, tmp_path)
    looks = [
        *(use("Grep", pattern="pl4nte.", path=at) for at in (str(outside), "way", "link")),
        *(use("Glob", pattern="*", path=at) for at in (str(outside), "way")),
    ]
    at_work.build("\n".join([*looks, INSIDE[2], "run: cat way/secret.txt"]))
    built = at_work.model.requests[-1]
    *refused, inside, ran = results(built)
    assert [error for _, _, _, error in refused] == [True] * len(looks)
    assert "b.md" in inside[2]
    assert SECRET in ran[2]  # its shell reads what the worker may, as before
    at_work.chat("read a.txt\nsay end")
    chat = next(
        seen for seen in at_work.model.requests if seen.prompts[-1:] == ("read a.txt\nsay end",)
    )
    for part in ("tools", "system"):
        assert json.dumps(chat.body[part]) == json.dumps(built.body[part])
    assert chat.usage
    assert (
        chat.usage["cache_read_input_tokens"] > 10 * chat.usage["cache_creation_input_tokens"]
    )


@pytest.mark.parametrize("subagents", [True, False])
def test_the_agent_is_offered_these_tools_and_no_others(at_work: AtWork, subagents: bool):
    at_work.configure(BATON_SANDBOX="off", BATON_SUBAGENTS=str(subagents))
    at_work.chat("say hello")
    (seen,) = at_work.model.requests
    left_out = set[str]() if subagents else {"Agent", "SendMessage"}
    assert set(seen.tools) == (READING | REFUSED | OF_THE_TURN) - left_out
    assert "deferred tools are now available" not in json.dumps(seen.body["messages"])
