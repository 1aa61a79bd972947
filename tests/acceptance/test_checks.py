"""A build proves itself on the real CLI, seen from outside: mended in the resumed session, failing
for good under each policy, an error that was reported."""

from pathlib import Path
from uuid import UUID

import pytest

from dev.standin.model import Seen
from tests.acceptance.outside import Baton, Row, files
from tests.waiting import wait_until
from worker.client import Build, Update

MENDED = "test -f ok.txt || { echo 'write ok.txt: yes'; exit 3; }"
FIRST = "write a.txt: a"


def test_what_a_check_finds_is_mended_by_the_session_that_made_it(baton: Baton):
    project = baton.project("mended")
    chain = baton.ended(
        baton.ask(Build(project=project, user="ann", prompt=FIRST, check=MENDED))
    )
    assert chain["state"] == "done"
    moves = baton.moves(project)
    assert [(one["source"], one["reason"]) for one in moves] == [
        ("build", None),
        ("recovery", "check_failed"),
        ("metadata", None),
        ("metadata", None),
        ("compact", None),
    ]
    assert moves[1]["parent_session_id"] == moves[0]["new_session_id"]
    repair = _heard(baton, project, "write ok.txt: yes")
    assert FIRST in repair.prompts, "the model sees its own earlier work"
    assert "exit status 3" in repair.prompts[-1]
    assert files(baton.workspace(project)).keys() == {"a.txt", "ok.txt", "DOCUMENTATION.md"}
    shown = baton.cli("jobs", str(chain["id"]))
    assert "Checks" in shown.stdout
    document = baton.cli_json("jobs", str(chain["id"]))
    assert [(one["round"], one["outcome"]) for one in document["checks"]] == [
        (0, "failed"),
        (1, "passed"),
    ]


@pytest.mark.long  # tests/integration/test_checks.py has each policy
def test_a_version_that_fails_for_good_is_kept_taken_back_or_asked_about(baton: Baton):
    project = baton.project("failing")
    baton.ended(baton.ask(Build(project=project, user="ann", prompt=FIRST)))
    before = baton.head(project)
    done = baton.cli("project", project, "--check", "echo say I tried; exit 1")
    assert done.returncode == 0, done.stderr

    def update(prompt: str, policy: str) -> Row:
        asked = Update.model_validate(
            {
                "project": project,
                "user": "ann",
                "prompt": prompt,
                "on_check_failed": policy,
                "check_tries": 1,
            }
        )
        job = baton.ask(asked)
        return baton.until(job, "failed", "parked")

    taken_back = update("write b.txt: b", "rewind")
    assert taken_back["error_class"] == "check_failed"
    assert baton.head(project) == before
    assert "b.txt" not in files(baton.workspace(project))

    kept = update("write c.txt: c", "keep")
    assert str(kept["error"]).endswith("Its version stands as failing.")
    assert "c.txt" in files(baton.workspace(project))

    asked = update("write d.txt: d", "ask")
    assert asked["error_class"] == "check_undecided"
    shown = baton.cli("jobs", str(asked["id"]))
    assert "asks what is to become of it" in " ".join(shown.stdout.split())
    assert baton.cli("answer", str(asked["id"]), "rewind").returncode == 0
    baton.until(asked["id"], "failed")
    assert "d.txt" not in files(baton.workspace(project))
    rows = baton.rows(
        "select check_status, count(*)::int as n from project_versions where project_id = %s"
        " group by 1 order by 1",
        project,
    )
    assert [(row["check_status"], row["n"]) for row in rows] == [
        ("failing", 3),
        ("unchecked", 1),
    ]


@pytest.mark.parametrize("door", ["cli", pytest.param("celery", marks=pytest.mark.long)])
def test_an_error_that_was_reported_is_mended(baton: Baton, tmp_path: Path, door: str):
    project = baton.project("reported")
    baton.ended(baton.ask(Build(project=project, user="ann", prompt=FIRST)))
    if door == "cli":
        log = tmp_path / "deploy.log"
        log.write_bytes(b"deploying\xff\nwrite fix.txt: done\n")
        words = ("--project", project, "--user", "ann", "--error-file", str(log))
        asked = baton.cli_json("enqueue", "repair", *words)["id"]
    else:
        error = "write fix.txt: done"
        asked = baton.send("tasks.build", project_id=project, user_id="ann", error=error)
        wait_until(
            lambda: baton.rows("select 1 from jobs where id = %s", UUID(asked)),
            timeout=60,
            description="the message to be taken",
        )
    assert baton.ended(UUID(asked))["state"] == "done"
    assert FIRST in _heard(baton, project, "write fix.txt: done").prompts
    assert "fix.txt" in files(baton.workspace(project))
    sources = [(one["source"], one["reason"]) for one in baton.moves(project)]
    assert ("recovery", "error_reported") in sources


@pytest.mark.long  # as above: test_races.py
def test_of_a_race_of_three_the_one_that_passes_is_taken(baton: Baton):
    project = baton.project("race")
    baton.ended(baton.ask(Build(project=project, user="ann", prompt=FIRST)))
    words = ("--project", project, "--user", "ann", "--prompt", "write b.txt: b\nsleep 2")
    race = ("--race", "3", "--check", "test -f ok.txt", "--check-tries", "0")
    asked = UUID(baton.cli_json("enqueue", "update", *words, *race)["id"])
    places = baton.workspace(project).parent / ".branches" / project

    def first() -> Path | None:
        return next((one.parent for one in places.glob("*/b.txt")), None)

    at_work = wait_until(first, timeout=60, description="one of the race to be at work")
    assert at_work
    (at_work / "ok.txt").write_text("of this one only\n")
    chain = baton.ended(asked)
    assert chain["state"] == "done", chain["error"]
    assert files(baton.workspace(project)).keys() >= {"a.txt", "b.txt", "ok.txt"}
    (branch,) = baton.rows("select * from branches where project_id = %s", project)
    assert branch["lane"] == at_work.name
    (promoted,) = [one for one in baton.moves(project) if one["reason"] == "promoted"]
    assert promoted["new_session_id"] == branch["head"]
    others = [job for job in baton.jobs(project) if job["lane"] not in ("main", at_work.name)]
    assert len(others) == 2
    assert {job["state"] for job in others} <= {"failed", "cancelled"}
    assert any(job["started_at"] for job in others), "side by side"
    cost = baton.row(
        "select sum(t.cost_usd) as usd from turns t join jobs j on j.id = t.job_id"
        " where j.chain_id = %s and j.lane <> 'main'",
        asked,
    )
    assert cost["usd"] > 0, "of the request's own chain"


def _heard(baton: Baton, project: str, text: str) -> Seen:
    """The first request whose prompt has the text in it."""
    return next(one for one in baton.seen(project) if text in one.prompt)
