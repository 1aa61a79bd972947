"""When every session of a project is lost, a fresh one can still answer for its past."""

import pytest

from dev.standin.model import Seen
from tests.acceptance.outside import Baton
from worker.client import Build, ChatPlan, Update
from worker.session.cheapest import CHARS

FIRST = "write index.html: <h1>Tea</h1>\nsay the front page has a heading"
SECOND = "write prices.html: green 4, black 3\nsay green tea costs 4"
ASKED, QUESTION = "which tea do you like?\nsay the black one", "what did we do so far?"


def worked_on(baton: Baton) -> str:
    """A project with two builds, their metadata and compactions, and a question."""
    project = baton.project()
    for ask in (
        Build(project=project, user="ann", prompt=FIRST),
        ChatPlan(project=project, user="ann", prompt=ASKED),
        Update(project=project, user="ann", prompt=SECOND),
    ):
        assert baton.ended(baton.ask(ask))["state"] == "done"
    return project


def lose_all(baton: Baton, project: str) -> None:
    for move in baton.moves(project):
        baton.lose(move["new_session_id"])


def asked_fresh(baton: Baton, project: str) -> tuple[str, Seen]:
    """The answer of a session that knows nothing by itself, and what it was asked."""
    done = baton.chat(project, QUESTION)
    assert done["state"] == "done", done["error"]
    assert baton.moves(project)[-1]["source"] == "fallback"
    seen = baton.seen_of(project, QUESTION)
    assert seen.prompts == (QUESTION,)  # word for word, and nothing else was asked in there
    return done["result"]["text"], seen


def assert_knows_the_past(history: str) -> None:
    for said in (FIRST, SECOND, ASKED):  # requests, each word for word, behind the fence
        assert said.replace("\n", "\n| ") in history
    for answered in ("the front page has a heading", "green tea costs 4", "the black one"):
        assert f"assistant: {answered}" in history
    for file in ("index.html", "prices.html", "DOCUMENTATION.md"):
        assert file in history
    assert "# Documentation" in history
    assert "## Summary of the work so far" in history  # of the last compaction
    assert len(history) / CHARS < 4_000  # tokens, about


@pytest.mark.long  # tests/integration/test_digest.py and test_ladder.py show its parts
def test_a_fresh_session_answers_questions_about_the_past(baton: Baton):
    project = worked_on(baton)
    lose_all(baton, project)
    answer, seen = asked_fresh(baton, project)
    assert_knows_the_past(seen.history)
    assert "The project's history says" in answer
    assert FIRST.splitlines()[0] in answer or "index.html" in answer
