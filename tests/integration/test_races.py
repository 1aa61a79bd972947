"""A race: one request on several branches, of which the first that passes its check is taken."""

from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from db.jobs import checks, jobs
from db.jobs.jobs import Job
from db.projects import branches, projects, races
from tests.dying import killed_at
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.client import Update
from worker.reports import waits

pytestmark = pytest.mark.agent("direct")

ASKED = {"project": P, "user": U, "prompt": "write b.txt: b", "check_tries": 0}


def asked_for(at_work: AtWork, **more: Any) -> UUID:
    at_work.begin("write a.txt: a")
    asked: dict[str, Any] = {"race": 3, "check": "false"} | ASKED | more
    return at_work.ask(Update(**asked))


def begun(at_work: AtWork, **more: Any) -> UUID:
    """Ask for a race after a first build, and let it begin."""
    asked = asked_for(at_work, **more)
    assert at_work.run(asked).state == "waits"
    return asked


def racers(at_work: AtWork, asked: UUID) -> list[Job]:
    found = [job for job in jobs.chain(at_work.conn, asked) if "racer" in job.args]
    return sorted(found, key=lambda job: job.args["racer"])


def states(at_work: AtWork, asked: UUID) -> list[str]:
    return [job.state for job in racers(at_work, asked)]


def run(at_work: AtWork, asked: UUID, number: int, check: list[str] | None = None) -> None:
    """Run one of them, with a check of its own."""
    job = racers(at_work, asked)[number - 1]
    if check:
        change = Jsonb({"check": check})
        at_work.conn.execute(
            "update jobs set args = args || %s where id = %s", (change, job.id)
        )
    at_work.run(job.id)


def sent_for(at_work: AtWork) -> bool:
    """Whether the relay is to look at the main line."""
    return at_work.value("select count(*) from lane_ends where lane = 'main'") > 0


def version(at_work: AtWork) -> tuple[str, str]:
    """The newest, and what its check came to."""
    return at_work.rows("select version_id, check_status from project_versions order by id")[-1]


def files(at_work: AtWork) -> list[str]:
    return sorted(one.name for one in at_work.place.iterdir())


def test_the_first_that_passes_takes_the_main_lines_place(at_work: AtWork):
    at_work.configure(BATON_USER_SLOTS="1")  # whoever waits holds none
    asked = begun(at_work)
    before = at_work.head()
    assert at_work.job(asked).state == "parked"
    reason = waits.of_one(at_work.conn, asked)
    assert reason
    assert reason.code == "race"
    run(at_work, asked, 1)
    run(at_work, asked, 2, ["test -f b.txt"])
    assert sent_for(at_work)
    assert at_work.head() == before
    assert at_work.run(asked).state == "waits", "the others are stopped first"
    assert states(at_work, asked) == ["failed", "done", "cancelled"]
    chain = at_work.chain_of(asked) if at_work.run(asked).state == "done" else []
    winner = racers(at_work, asked)[1]
    (branch,) = branches.of_project(at_work.conn, P)
    assert (branch.lane, branch.promoted_at is not None) == (winner.lane, True)
    assert {"b.txt"} < set(files(at_work))
    assert [(job.kind, job.state) for job in chain][-2:] == [
        ("metadata", "done"),
        ("compaction", "done"),
    ]
    assert chain[0].result
    assert chain[0].result["race"]["winner"] == 2
    assert chain[0].result["files_created"] == ["b.txt"]
    source, reason, old, new, _ = at_work.moves()[1]
    assert (source, reason, old, new) == ("fork", "promoted", before, branch.head)
    assert version(at_work) == (str(asked), "passing")
    assert len([one for one in at_work.events("chat.said") if one["role"] == "assistant"]) == 2
    assert violations(at_work.conn) == []


def test_who_ends_before_the_race_waits_is_not_overlooked(at_work: AtWork):
    asked = begun(at_work)
    at_work.conn.execute("delete from lane_ends")
    races.look_again(at_work.conn, asked)
    due = "select publish_after <= now() from jobs where id = %s"
    assert not at_work.value(due, asked), "nobody has ended"
    run(at_work, asked, 3, ["true"])
    races.look_again(at_work.conn, asked)
    assert at_work.value(due, asked)


@pytest.mark.parametrize(
    ("policy", "state", "after"),
    [
        ("keep", "failed", ["a.txt", "b.txt"]),
        ("rewind", "failed", ["a.txt"]),
        ("ask", "parked", ["a.txt"]),
    ],
)
def test_where_none_passes_the_request_says_what_becomes_of_the_nearest(
    at_work: AtWork, policy: str, state: str, after: list[str]
):
    asked = begun(at_work, on_check_failed=policy)
    run(at_work, asked, 1)
    run(at_work, asked, 2, ["true", "exit 7"])
    run(at_work, asked, 3)
    at_work.run(asked)
    job = at_work.job(asked)
    assert job.state == state
    assert "None of the 3 passed its check. Of the nearest" in str(job.error)
    assert "exit status 7" in str(job.error)
    assert files(at_work) == after
    if policy == "keep":
        assert version(at_work) == (str(asked), "failing")
        (branch,) = branches.of_project(at_work.conn, P)
        assert branch.lane == racers(at_work, asked)[1].lane
    if policy == "ask":
        assert not checks.decide(at_work.conn, asked, "repair"), "no session is the race's own"
        assert checks.decide(at_work.conn, asked, "keep")
        assert at_work.again(asked).error_class == "check_failed"
        assert files(at_work) == ["a.txt", "b.txt"]
    assert violations(at_work.conn) == []


def test_a_race_of_which_nobody_comes_to_a_version_has_failed(at_work: AtWork):
    asked = begun(at_work, prompt="fail", race=2)
    for job in racers(at_work, asked):
        jobs.cancel(at_work.conn, job.id)
    at_work.run(asked)
    assert at_work.job(asked).error_class == "race_failed"
    assert branches.of_project(at_work.conn, P) == []


def test_what_has_won_is_kept_as_a_branch_if_the_head_was_moved_meanwhile(at_work: AtWork):
    at_work.begin("write 0.txt: 0")
    first = at_work.head()
    assert first
    asked = begun(at_work, race=2)
    projects.rewind(at_work.conn, P, first)
    run(at_work, asked, 1, ["true"])
    at_work.run(asked)
    at_work.run(asked)
    assert at_work.job(asked).error_class == "not_promoted"
    assert at_work.head() == first
    (branch,) = branches.of_project(at_work.conn, P)
    assert branch.lane == racers(at_work, asked)[0].lane
    branches.promote(at_work.conn, P, branch.lane, onto=first)
    assert at_work.head() == branch.head


@pytest.mark.parametrize("point", ["race.begun", "race.promoted"])
def test_who_is_killed_in_a_race_goes_on_there(at_work: AtWork, point: str):
    asked = asked_for(at_work, race=2, check="true")
    if point == "race.begun":
        killed_at(at_work, asked, point)
        run(at_work, asked, 1)
        run(at_work, asked, 2)
    else:
        at_work.run(asked)
        run(at_work, asked, 1)
        run(at_work, asked, 2)
        killed_at(at_work, asked, point)
    assert at_work.run(asked).state == "done"
    assert states(at_work, asked) == ["done", "done"]
    assert len(at_work.moves()) == 2
    assert len(branches.of_project(at_work.conn, P)) == 1
    assert files(at_work) == ["a.txt", "b.txt"]


def test_a_cancel_ends_all_of_a_race(at_work: AtWork):
    asked = begun(at_work)
    jobs.cancel(at_work.conn, asked)
    assert at_work.job(asked).state == "cancelled"
    assert states(at_work, asked) == ["cancelled"] * 3


def test_nobody_begins_in_a_race_that_is_over(at_work: AtWork):
    asked = begun(at_work)
    at_work.ask(Update(project=P, user=U, prompt="write c.txt: c", busy="interrupt"))
    assert at_work.job(asked).state == "cancelled"
    run(at_work, asked, 1)
    assert states(at_work, asked)[0] == "cancelled"
    assert at_work.turns(racers(at_work, asked)[0].id) == []


def test_those_who_race_share_the_budget_and_have_a_model_each(at_work: AtWork):
    asked = begun(at_work, race=2, budget=3, race_models=["opus", "haiku"])
    given = [(job.args["model"], job.args["budget"]) for job in racers(at_work, asked)]
    assert given == [("opus", 1.5), ("haiku", 1.5)]
