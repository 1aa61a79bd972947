"""What a process loads: the agent SDK costs as much as all else together."""

import subprocess
import sys

import pytest

SDK = ("claude_agent_sdk", "mcp", "mcp_types")


@pytest.mark.parametrize(
    "modules",
    [
        pytest.param(
            ["worker.app", "tasks.build", "tasks.metadata", "tasks.compaction", "tasks.upkeep"],
            id="beat and Flower",
        ),
        pytest.param(["worker.relay"], id="relay"),
        pytest.param(["dev.stack.up", "worker.cli.doctor"], id="command line"),
    ],
)
def test_only_a_worker_loads_the_agent_sdk(modules: list[str]):
    code = f"import sys, {', '.join(modules)}; print(*[m for m in {SDK} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
