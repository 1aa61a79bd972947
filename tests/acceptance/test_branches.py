"""Branches and templates, seen from outside: two lines of a project, and a template for both of two.

template   L ─────────────────────────────┐
shop       └► A ──► C: main               └► other shop
              └───► B: branch ──promoted──► D
"""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest

from tests.acceptance.outside import Baton, Row, files, is_sentence
from worker.client import Build, Update

LEARN = "say I know how shops are built"
FIRST = "write index.html: a tea shop"
BESIDE = "write beside.txt: of the branch\nsleep 1"
MAIN = "write main.txt: of the main line\nsleep 1"
NEXT = "read beside.txt\nsay went on"
OTHER = "write other.txt: a book shop"
ALL = {"index.html", "beside.txt", "main.txt"}


@dataclass(frozen=True)
class Story:
    template: str
    shop: str
    other: str
    jobs: dict[str, UUID]  # by prompt
    lane: str
    heads: dict[str, str | None]  # the shop's, after each of them
    branch: Row  # as `baton branches` showed it before it was promoted
    refused: str  # what a promotion was told that did not name the head
    asked: list[str]  # of the model in the branch's directory
    places: dict[str, set[str]]  # the files of either line, side by side
    out_of_step: list[Row]


pytestmark = pytest.mark.long  # test_branches.py of integration shows the same line by line


@pytest.fixture(scope="module")
def story(running: Baton) -> Story:
    return _tell(running)


def _tell(baton: Baton) -> Story:
    template, shop, other = (baton.project(name) for name in ("shops", "shop", "other"))
    jobs, heads, out_of_step = dict[str, UUID](), dict[str, str | None](), list[Row]()

    def look() -> None:
        nonlocal out_of_step
        out_of_step += baton.rows("select * from session_sync where sync_status <> 'SYNCED'")

    def ended(prompt: str) -> None:
        job = baton.ended(jobs[prompt], meanwhile=look)
        assert job["state"] == "done", job["error"]
        heads[prompt] = baton.head(shop)

    learn = Build(project=template, user="_template", prompt=LEARN)
    jobs[LEARN] = baton.ask(learn, operator=True)
    assert baton.over(jobs[LEARN])["state"] == "done"
    jobs[FIRST] = baton.ask(Build(project=shop, user="ann", prompt=FIRST, template=template))
    ended(FIRST)

    beside = baton.cli_json(
        *("enqueue", "update", "--project", shop, "--user", "ann", "--prompt", BESIDE),
        *("--branch-from", str(heads[FIRST])),
    )
    jobs[BESIDE] = UUID(beside["id"])
    jobs[MAIN] = baton.ask(Update(project=shop, user="ann", prompt=MAIN))
    ended(BESIDE)
    ended(MAIN)
    (branch,) = baton.cli_json("branches", shop)["branches"]
    found = {"main": baton.workspace(shop), "branch": _place(baton, branch)}
    places = {line: set(files(place)) & ALL for line, place in found.items()}

    refused = baton.cli("promote", shop, branch["lane"])
    assert refused.returncode == 1
    baton.cli_json("promote", shop, branch["lane"], "--onto", str(heads[MAIN]))
    look()
    jobs[OTHER] = baton.ask(Build(project=other, user="bob", prompt=OTHER, template=template))
    jobs[NEXT] = baton.ask(Update(project=shop, user="ann", prompt=NEXT))
    ended(NEXT)
    ended(OTHER)
    return Story(
        *(template, shop, other, jobs, branch["lane"], heads, branch, refused.stderr),
        asked=[seen.prompt for seen in baton.seen(branch["lane"])],
        places=places,
        out_of_step=out_of_step,
    )


def _place(baton: Baton, branch: Row) -> Path:
    (place,) = (baton.root / "workspaces/.branches").glob(f"*/{branch['lane']}")
    return place


def test_both_lines_are_worked_on_at_the_same_time(baton: Baton, story: Story):
    beside, main = (baton.job(story.jobs[prompt]) for prompt in (BESIDE, MAIN))
    assert (beside["lane"], main["lane"]) == (story.lane, "main")
    assert beside["started_at"] < main["finished_at"]
    assert main["started_at"] < beside["finished_at"]
    for job in (beside, main):
        assert baton.tries(job["id"]) == [(story.heads[FIRST], "resumed", None)]


def test_each_line_has_its_own_head_and_files(story: Story):
    assert story.branch["from_session"] == story.heads[FIRST]
    assert story.branch["promoted_at"] is None
    assert len({story.branch["head"], story.heads[MAIN], story.heads[FIRST]}) == 3
    assert story.places == {
        "main": {"index.html", "main.txt"},
        "branch": {"index.html", "beside.txt"},
    }
    assert MAIN not in story.asked


def test_a_promotion_says_which_head_it_replaces(baton: Baton, story: Story):
    assert is_sentence(story.refused)
    assert str(story.heads[MAIN]) in story.refused
    (fork,) = (move for move in baton.moves(story.shop) if move["source"] == "fork")
    assert (fork["old_session_id"], fork["new_session_id"], fork["parent_session_id"]) == (
        story.heads[MAIN],
        story.branch["head"],
        story.heads[FIRST],
    )


def test_the_next_update_resumes_what_was_promoted_and_sees_its_files(
    baton: Baton, story: Story
):
    assert baton.tries(story.jobs[NEXT]) == [(story.branch["head"], "resumed", None)]
    assert baton.job(story.jobs[NEXT])["result"]["text"] == "went on"
    seen = [one for one in baton.seen(story.shop) if one.prompt == NEXT]
    assert {FIRST, BESIDE} <= set(seen[0].prompts)
    assert MAIN not in seen[0].prompts
    assert "of the branch" in str(seen[-1].body["messages"][-1]), "what it read"
    assert set(files(baton.workspace(story.shop))) & ALL == {"index.html", "beside.txt"}


def test_projects_of_one_template_know_it_and_nothing_of_each_other(baton: Baton, story: Story):
    for project, prompt in ((story.shop, FIRST), (story.other, OTHER)):
        begin = baton.moves(project)[0]
        assert (begin["source"], begin["reason"]) == ("build", "template")
        assert begin["parent_session_id"] in {
            move["new_session_id"] for move in baton.moves(story.template)
        }
        assert LEARN in baton.seen_of(project, prompt).prompts
    for said in (FIRST, BESIDE, MAIN, NEXT):
        assert not [one for one in baton.seen(story.other) if said in str(one.body)]
        assert not [one for one in baton.seen(story.template) if said in str(one.body)]
    assert baton.head(story.template) == baton.moves(story.template)[-1]["new_session_id"]


def test_the_reports_name_the_branchs_turns_and_find_everything_in_step(
    baton: Baton, story: Story
):
    costs = baton.cli_json("report", "cost", "--project", story.shop)["rows"]
    branch = {row["kind"]: row["turns"] for row in costs if row["source"] == "branch"}
    assert branch == {"build": 1, "metadata": 2, "compaction": 1}
    assert all(row["cost_usd"] > 0 for row in costs)
    assert "unknown" not in {row["source"] for row in costs}
    assert story.out_of_step == []
    sync = {row["project_id"]: row for row in baton.cli_json("report", "sync")["rows"]}
    for project in (story.template, story.shop, story.other):
        assert sync[project]["sync_status"] == "SYNCED"
        assert sync[project]["last_ai_session_id"] == baton.head(project)
