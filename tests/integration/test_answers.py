"""Recommendations have a form: by the tool that every turn has, or whatever else the model does."""

import json
from pathlib import Path

from tests.running import AtWork, P, U
from worker.agent import answers
from worker.client import Metadata

GOOD = {
    "summary": "A site.",
    "recommendations": [{"title": "Test", "reason": "Nothing is.", "priority": "high"}],
}
WRONG = {"summary": "A site.", "recommendations": [{"title": "Test"}]}
DOCUMENTATION = "  - {when: 'DOCUMENTATION', steps: [{say: The documentation.}]}\n"


def recommended(at_work: AtWork, tmp_path: Path, *rules: str) -> list[tuple[str, str]]:
    """Have metadata made by a model of these rules; each turn of the job, and its outcome."""
    at_work.begin("write a.txt: 1")
    scenario = tmp_path / "mine.yaml"
    listed = "".join(f"  - {{when: Look at the project, {rule}}}\n" for rule in rules)
    scenario.write_text(f"rules:\n{listed}{DOCUMENTATION}")
    at_work.model.use(scenario)
    job = at_work.one(Metadata(project=P, user=U))
    assert job.state == "done", job.error
    assert job.result
    assert job.result["recommendations"] == GOOD
    return [(turn["step"], turn["outcome"]) for turn in at_work.turns(job.id)]


ONCE = [("recommendations", "committed"), ("documentation", "committed")]


def test_an_answer_of_another_form_is_put_right_by_the_tools_error(
    at_work: AtWork, tmp_path: Path
):
    uses = [{"use": {"tool": answers.NAME, "input": each}} for each in (WRONG, GOOD)]
    turns = recommended(at_work, tmp_path, f"steps: {json.dumps(uses)}")
    assert turns == ONCE
    assert "validation error" in json.dumps(at_work.model.requests[-2].body)


def test_an_answer_in_words_is_read_out_of_them(at_work: AtWork, tmp_path: Path):
    says = [{"say": f"Gladly:\n```json\n{json.dumps(GOOD)}\n```"}]
    turns = recommended(at_work, tmp_path, f"in_words: true, steps: {json.dumps(says)}")
    assert turns == ONCE


def test_a_model_that_knows_the_clis_own_way_alone_is_asked_in_that(
    at_work: AtWork, tmp_path: Path
):
    turns = recommended(
        at_work,
        tmp_path,
        f"offered: StructuredOutput, steps: [{{answer: {json.dumps(GOOD)}}}]",
        "in_words: true, steps: [{say: Test it.}]",
    )
    assert turns == [("recommendations", "failed"), *ONCE]


def test_a_model_that_never_gets_it_right_ends_its_turn(at_work: AtWork, tmp_path: Path):
    at_work.begin("write a.txt: 1")
    scenario = tmp_path / "mine.yaml"
    use = json.dumps({"tool": answers.NAME, "input": WRONG})
    scenario.write_text(f"rules: [{{steps: [{{use: {use}}}, {{say: done}}]}}]")
    at_work.model.use(scenario)
    before = len(at_work.model.requests)
    job = at_work.one(Metadata(project=P, user=U))
    assert (job.state, job.error_class) == ("queued", answers.EXHAUSTED)
    assert len(at_work.model.requests) - before <= answers.TRIES + 1  # the last is cut short
