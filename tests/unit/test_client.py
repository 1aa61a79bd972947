"""What a producer imports needs Postgres only, and takes no field that it does not know."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from worker.client import Build, ChatPlan, Compaction, Metadata, Update

CHECKOUT = Path(__file__).parents[2]
NOT_NEEDED = "celery kombu flower claude_agent_sdk typer httpx config.rules worker.app worker.broker.publish"


def test_a_producer_loads_neither_celery_nor_the_sdk():
    program = (
        "import sys, worker.client;"
        f"sys.exit(' '.join(m for m in '{NOT_NEEDED}'.split() if m in sys.modules) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(CHECKOUT), "DATABASE_URL": "postgresql://localhost/x"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("kind", [Build, Update, ChatPlan, Metadata, Compaction])
def test_a_field_that_is_not_known_is_not_passed_over(kind: type[Build]):
    with pytest.raises(ValidationError, match="promt"):
        kind.model_validate({"project": "p", "user": "u", "promt": "x"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"project": 5},
        {"busy": "maybe"},
        {"max_turns": "x"},
        {"budget": "NaN"},
        {"on_lost": "?"},
    ],
)
def test_a_value_of_the_wrong_type_is_refused_when_the_request_is_made(
    wrong: dict[str, object],
):
    with pytest.raises(ValidationError):
        Build.model_validate({"project": "p", "user": "u", "prompt": "x", **wrong})


def test_a_request_does_not_change_once_it_is_made():
    asked = Build(project="p", user="u", prompt="x")
    with pytest.raises(ValidationError, match="frozen"):
        asked.prompt = "y"  # pyright: ignore[reportAttributeAccessIssue]
