"""Metadata: two steps, each of which moves the head, and which hurt nothing of the build."""

from pathlib import Path
from typing import Any

import pytest

from db.jobs.jobs import Job
from dev.agents.scripted import scripted
from tests.running import AtWork, P, U
from worker.agent import Request, Turn
from worker.client import Build, Metadata

GOOD: dict[str, Any] = {
    "summary": "A\x00 site.",
    "recommendations": [
        {"title": "Test it", "reason": "Nothing is tested.", "priority": "high", "more": 1}
    ],
}


def answering(structured: Any, text: str = "Done.") -> Any:
    """An agent that answers like this where a form is asked for."""

    def agent(request: Request, **more: Any) -> Turn:
        from dataclasses import replace

        from worker.text.storable import plain_data

        turn = scripted(says=text)(request, **more)
        return replace(turn, structured=plain_data(structured)) if request.schema else turn

    return agent


def described(at_work: AtWork, agent: Any = None) -> Job:
    """The metadata job of a first build."""
    at_work.build("write a.txt: 1", agent=scripted())
    return at_work.one(Metadata(project=P, user=U), agent)


@pytest.mark.agent("direct")
def test_recommendations_and_documentation_move_the_head_one_after_the_other(at_work: AtWork):
    build, job, _ = at_work.chain(Build(project=P, user=U, prompt="write a.txt: 1"))
    assert job.state == "done"
    assert job.result
    assert set(job.result) == {"recommendations", "documentation"}
    assert job.result["recommendations"]["recommendations"][0]["priority"] == "high"
    assert (at_work.place / "DOCUMENTATION.md").read_text().startswith("# Documentation")
    assert [move[0] for move in at_work.moves()] == ["build", "metadata", "metadata"]
    assert at_work.rows("select version_id, ai_session_id from project_versions") == [
        (str(build.id), at_work.head())
    ]


def test_a_step_that_is_committed_is_not_run_again(at_work: AtWork):
    at_work.begin("write a.txt: 1")
    begun = len(at_work.model.requests)
    at_work.model.fault("529", times=-1, when="DOCUMENTATION")
    asked = at_work.ask(Metadata(project=P, user=U))
    assert at_work.run(asked).error_class == "overloaded"
    after_first = at_work.head()
    at_work.model.clear_faults()
    assert at_work.again(asked).state == "done"
    steps = [(turn["step"], turn["outcome"]) for turn in at_work.turns(asked)]
    assert steps == [
        ("recommendations", "committed"),
        ("documentation", "failed"),
        ("documentation", "committed"),
    ]
    prompts = [seen.prompt for seen in at_work.model.requests[begun:]]
    assert len([p for p in prompts if p.startswith("Look at the project")]) == 3  # one turn
    assert at_work.moves()[-1][2] == after_first


def test_documentation_may_come_as_an_answer(at_work: AtWork):
    job = described(at_work, answering(GOOD, "# The site"))
    assert job.state == "done"
    assert (at_work.place / "DOCUMENTATION.md").read_text() == "# The site\n"


def test_a_link_in_the_documentations_place_is_replaced_not_followed(
    at_work: AtWork, tmp_path: Path
):
    target = tmp_path / "target"
    target.write_text("mine")
    at_work.build("begin", agent=scripted())
    (at_work.place / "DOCUMENTATION.md").symlink_to(target)
    assert at_work.one(Metadata(project=P, user=U), answering(GOOD, "# Site")).state == "done"
    assert target.read_text() == "mine"
    assert not (at_work.place / "DOCUMENTATION.md").is_symlink()


def test_recommendations_are_kept_in_the_form_that_was_asked_for(at_work: AtWork):
    job = described(at_work, answering(GOOD))
    assert job.result
    assert job.result["recommendations"] == {
        "summary": "A\ufffd site.",
        "recommendations": [
            {"title": "Test it", "reason": "Nothing is tested.", "priority": "high"}
        ],
    }


@pytest.mark.parametrize("wrong", [{"summary": 1}, {"summary": "x", "recommendations": 2}])
def test_an_answer_of_another_form_is_asked_for_once_more(at_work: AtWork, wrong: Any):
    job = described(at_work, answering(wrong))
    before = at_work.head()
    assert (job.state, job.error_class) == ("queued", "structured_output_retry_exhausted")
    (turn,) = at_work.turns(job.id)
    assert (turn["outcome"], turn["cost_usd"]) == ("failed", 0.25)  # it was paid for
    job = at_work.again(job.id, answering(wrong))
    assert (job.state, job.attempts) == ("failed", 2)
    assert at_work.head() == before


def test_an_agent_that_answers_in_words_is_asked_again_at_once(at_work: AtWork):
    at_work.build("write a.txt: 1", agent=scripted())
    before = at_work.head()
    job = at_work.one(Metadata(project=P, user=U), answering(None))
    assert (job.state, job.error_class) == ("failed", "structured_output_retry_exhausted")
    assert [turn["outcome"] for turn in at_work.turns(job.id)] == [
        "failed"
    ] * 3  # fresh at last
    assert at_work.head() == before


@pytest.mark.agent("direct")
def test_metadata_that_fails_hurts_nothing_and_the_chain_goes_on(at_work: AtWork):
    at_work.configure(BATON_COMPACT="never", BATON_ATTEMPTS="1")
    asked = at_work.ask(Build(project=P, user=U, prompt="write a.txt: 1"))
    at_work.run(asked)
    built = at_work.head()
    at_work.model.fault("529", times=-1)
    jobs = at_work.chain_of(asked)
    assert [(job.kind, job.state) for job in jobs] == [
        ("build", "done"),
        ("metadata", "failed"),
        ("compaction", "done"),
    ]
    assert at_work.head() == built
    assert at_work.value("select ai_session_id from project_versions") == built


def test_a_directory_in_the_documentations_place_is_told_of_in_a_sentence(at_work: AtWork):
    at_work.build("begin", agent=scripted())
    (at_work.place / "DOCUMENTATION.md").mkdir()
    job = at_work.one(Metadata(project=P, user=U), answering(GOOD))
    assert (job.state, job.error_class) == ("failed", "bad_request")
    assert "DOCUMENTATION.md is a directory" in (job.error or "")
