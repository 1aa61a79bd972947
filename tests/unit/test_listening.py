"""What is told of a tool call: its one telling argument, with no word on where this host keeps things."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from claude_agent_sdk import AssistantMessage, ToolUseBlock

from worker.agent import Watch
from worker.agent.failures import Report
from worker.agent.listening import note

CWD = Path("/srv/baton/workspaces/shop")


def quiet(saw: Callable[[str, dict[str, Any]], None] | None = None) -> Watch:
    """Follows a run, and stops nothing."""
    return Watch(
        saw=saw or (lambda what, body: None),
        alive=lambda: None,
        stopped=lambda: None,
        end=lambda: None,
    )


@pytest.mark.parametrize(
    ("given", "about"),
    [
        ({"file_path": f"{CWD}/src/a.py"}, "src/a.py"),
        ({"path": str(CWD)}, "."),
        ({"command": f"cd {CWD} && cat {CWD}/a.txt '{CWD}/b c'"}, "cd  && cat a.txt 'b c'"),
        ({"file_path": f"{CWD}-2/a.py"}, f"{CWD}-2/a.py"),
        ({"file_path": f"/mnt{CWD}/a.py"}, f"/mnt{CWD}/a.py"),
        ({"pattern": "*.py"}, "*.py"),
        ({"other": 1}, ""),
    ],
)
def test_files_of_the_workspace_are_named_from_there(given: dict[str, Any], about: str):
    told = list[dict[str, Any]]()
    watch = quiet(saw=lambda _, body: told.append(body))
    block = ToolUseBlock(id="1", name="Tool", input=given)
    note(AssistantMessage(content=[block], model="m"), watch, Report(), CWD)
    assert [body["about"] for body in told] == [about]
