"""A race: one request on several branches, of which the first that passes its check is taken."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from db.jobs import checks, jobs
from db.jobs.attempts import Claimed
from db.jobs.jobs import Job
from db.operations import upkeep
from db.projects import branches, projects, races
from tests.dying import killed_at
from tests.faults.old_fleet import CLAIM
from tests.invariants import violations
from tests.ledger import blocked, claim
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.cli.pages import projects as pages
from worker.client import Update
from worker.reports import figures, waits
from worker.reports import projects as project_documents

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


def run(
    at_work: AtWork,
    asked: UUID,
    number: int,
    check: list[str] | None = None,
    prompt: str | None = None,
) -> None:
    """Run one of them, with a check or a prompt of its own."""
    job = racers(at_work, asked)[number - 1]
    given = {"check": check, "prompt": prompt}
    change = Jsonb({name: value for name, value in given.items() if value})
    at_work.conn.execute("update jobs set args = args || %s where id = %s", (change, job.id))
    at_work.run(job.id)


def charge(at_work: AtWork, asked: UUID, *costs: float) -> None:
    """Let those of the race have cost so much."""
    for job, cost in zip(racers(at_work, asked), costs, strict=True):
        at_work.conn.execute(
            """
            with charged as (
                update turns set cost_usd = %s where job_id = %s
                returning observed_session_id, cost_usd
            )
            update project_ai_session_metrics m set cost_usd = c.cost_usd
              from charged c where m.session_id = c.observed_session_id
            """,
            (cost, job.id),
        )


def let_pass(at_work: AtWork, seconds: int) -> None:
    """Let so much of the race's time be over."""
    at_work.conn.execute(
        """
        update jobs set created_at = created_at - %(ago)s, finished_at = finished_at - %(ago)s
         where args ? 'racer'
        """,
        {"ago": timedelta(seconds=seconds)},
    )


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
    racing = figures.checks(at_work.conn, 1)["racing"]
    assert [racing[name] for name in ("races", "won", "racers")] == [1, 1, 3]
    assert racing["cost_usd"] > racing["lost_usd"] > 0
    document = project_documents.path(at_work.conn, P)
    proved = document["moves"][1]["checks"]
    assert [(one["command"], one["outcome"]) for one in proved] == [("test -f b.txt", "passed")]
    assert "; its check passed" in str(pages.chain_page(document, {}))
    assert len([one for one in at_work.events("chat.said") if one["role"] == "assistant"]) == 2
    assert violations(at_work.conn) == []


def test_who_ends_before_the_race_waits_is_not_overlooked(at_work: AtWork):
    asked = begun(at_work)
    at_work.conn.execute("delete from lane_ends")
    assert not looked_again(at_work, asked), "nobody has ended"
    run(at_work, asked, 3, ["true"])
    assert looked_again(at_work, asked)


def test_an_attempt_that_was_replaced_begins_stops_and_promotes_nothing(at_work: AtWork):
    asked = begun(at_work, race=2)
    run(at_work, asked, 1, ["true"])
    before = at_work.head()
    late = cast("Claimed", Race(asked, at_work.job(asked).args))
    races.stop(at_work.conn, late)
    assert states(at_work, asked) == ["done", "queued"]
    winner, _ = races.racers(at_work.conn, late)
    assert not races.promote(at_work.conn, late, winner, "v", "passing")
    assert not races.begin(at_work.conn, late, {uuid4(): {}})
    assert (at_work.head(), len(racers(at_work, asked))) == (before, 2)


def test_what_was_asked_on_the_winners_branch_meanwhile_goes_on_in_the_main_line(
    at_work: AtWork,
):
    asked = begun(at_work, race=2, check="true")
    for number in (1, 2):
        run(at_work, asked, number)
    again = jobs.again(at_work.conn, racers(at_work, asked)[0].id)
    assert again
    assert again.lane != "main"
    at_work.conn.execute(
        "update jobs set state = 'running', lease_until = now(), attempt = id where id = %s",
        (again.id,),
    )
    assert at_work.run(asked).state == "waits", "somebody works on it"
    assert at_work.job(asked).error_class == "workspace_busy"
    at_work.conn.execute(
        "update jobs set state = 'queued', lease_until = null, attempt = null where id = %s",
        (again.id,),
    )
    assert at_work.again(asked).state == "done"
    assert at_work.job(again.id).lane == "main"
    assert violations(at_work.conn) == []


def test_a_claim_under_way_on_the_winners_branch_is_waited_for(at_work: AtWork, dsn: str):
    asked = begun(at_work, race=2, check="true")
    for number in (1, 2):
        run(at_work, asked, number)
    again = jobs.again(at_work.conn, racers(at_work, asked)[0].id)
    race = claim(at_work.conn, asked)
    assert again
    assert race
    winner, _ = races.racers(at_work.conn, race)
    with psycopg.connect(dsn) as worker, ThreadPoolExecutor() as threads:
        assert claim(worker, again.id)
        settled = threads.submit(races.promote, at_work.conn, race, winner, "v", "passing")
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the race to wait for the claim")
        worker.commit()
        with pytest.raises(races.BranchBusy):
            settled.result(10)
    assert at_work.job(again.id).lane == winner.lane


def looked_again(at_work: AtWork, asked: UUID) -> bool:
    """Whether the race's job, which waits, is sent for at once."""
    race = Race(asked, at_work.job(asked).args)
    races.look_again(at_work.conn, cast("Claimed", race))
    return at_work.value("select publish_after <= now() from jobs where id = %s", asked)


@dataclass
class Race:
    """What is looked at of the race's job."""

    id: UUID
    args: dict[str, Any]
    attempt: UUID = field(default_factory=uuid4)
    project_id: str = P


@pytest.mark.parametrize(("by", "winner"), [("cheapest", 2), ("smallest", 3)])
def test_the_cheapest_or_the_smallest_of_those_that_pass_is_taken(
    at_work: AtWork, by: str, winner: int
):
    asked = begun(at_work, race_by=by, check="test -f b.txt")
    run(at_work, asked, 1, prompt="write b.txt: of the largest change of all of them")
    assert at_work.run(asked).state == "waits"
    assert not looked_again(at_work, asked)
    assert states(at_work, asked) == ["done", "queued", "queued"], "all are waited for"
    run(at_work, asked, 2, prompt="write b.txt: of the largest change but for one")
    run(at_work, asked, 3)
    charge(at_work, asked, 3, 1, 2)
    assert looked_again(at_work, asked)
    assert at_work.run(asked).state == "done"
    told = (at_work.job(asked).result or {})["race"]
    assert (told["by"], told["winner"]) == (by, winner)
    assert [one["cost_usd"] for one in told["racers"]] == [3, 1, 2]
    first, second, third = (one["patch_bytes"] for one in told["racers"])
    assert first > second > third > 0
    (branch,) = branches.of_project(at_work.conn, P)
    assert branch.lane == racers(at_work, asked)[winner - 1].lane
    assert violations(at_work.conn) == []


def test_whoever_passes_after_the_time_is_not_taken_where_one_has_passed_before(
    at_work: AtWork,
):
    asked = begun(at_work, race_by="cheapest", race_seconds=60, check="true")
    sent = "select publish_after - created_at from jobs where id = %s"
    assert at_work.value(sent, asked) <= timedelta(seconds=60)
    run(at_work, asked, 1)
    let_pass(at_work, 61)
    run(at_work, asked, 2)
    charge(at_work, asked, 2, 1, 0)
    assert at_work.run(asked).state == "waits", "the third is stopped first"
    assert states(at_work, asked) == ["done", "done", "cancelled"]
    assert at_work.run(asked).state == "done"
    assert (at_work.job(asked).result or {})["race"]["winner"] == 1


def test_where_none_has_passed_in_time_the_first_that_does_is_taken(at_work: AtWork):
    asked = begun(at_work, race_by="smallest", race_seconds=60)
    run(at_work, asked, 1)
    let_pass(at_work, 61)
    assert at_work.run(asked).state == "waits"
    assert states(at_work, asked) == ["failed", "queued", "queued"]
    run(at_work, asked, 3, ["true"])
    assert looked_again(at_work, asked)
    at_work.run(asked)
    assert at_work.run(asked).state == "done"
    assert (at_work.job(asked).result or {})["race"]["winner"] == 3


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
        assert at_work.events("job.parked")[-1]["choices"] == ["keep", "rewind"]
        asks = waits.of_one(at_work.conn, asked)
        assert asks
        assert asks.sentence.endswith(" keep` or `rewind`.")
        assert waits.unanswered(job) == "takes keep or rewind"
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


def all_dropped(at_work: AtWork, asked: UUID) -> tuple[Job, str | None]:
    """The race of two when both have run and somebody has dropped their branches; and the head of before."""
    for number in (1, 2):
        run(at_work, asked, number)
        branches.drop(at_work.conn, P, racers(at_work, asked)[number - 1].lane)
    before = at_work.head()
    at_work.run(asked)
    return at_work.job(asked), before


@pytest.mark.parametrize("policy", ["keep", "rewind"])
def test_what_nobody_can_keep_any_more_has_failed_its_check_all_the_same(
    at_work: AtWork, policy: str
):
    asked = begun(at_work, race=2, on_check_failed=policy)
    job, before = all_dropped(at_work, asked)
    assert job.error_class == "check_failed"
    assert str(job.error).endswith("Session and files are as they were before the request.")
    assert at_work.head() == before


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


def test_what_somebody_dropped_is_not_taken_and_the_next_that_passed_is(at_work: AtWork):
    asked = begun(at_work, race=2, check="true")
    for number in (1, 2):
        run(at_work, asked, number)
    branches.drop(at_work.conn, P, racers(at_work, asked)[0].lane)
    assert at_work.run(asked).state == "done"
    assert (at_work.job(asked).result or {})["race"]["winner"] == 2
    assert violations(at_work.conn) == []


def test_where_all_that_passed_were_dropped_nothing_is_said_to_be_kept(at_work: AtWork):
    asked = begun(at_work, race=2, check="true")
    job, before = all_dropped(at_work, asked)
    assert job.error_class == "not_promoted"
    assert str(job.error) == (
        "What has won was dropped as a branch before it could be taken: ask anew."
    )
    assert at_work.head() == before


def test_a_race_whose_check_was_taken_away_meanwhile_begins_nothing(at_work: AtWork):
    checks.set_commands(at_work.conn, P, ["true"])
    asked = asked_for(at_work, check=None)
    checks.set_commands(at_work.conn, P, None)
    at_work.run(asked)
    job = at_work.job(asked)
    assert (job.state, job.error_class) == ("failed", "bad_request")
    assert "needs a check" in str(job.error)
    assert racers(at_work, asked) == []


def test_a_worker_of_an_older_release_begins_no_race_and_none_of_one(at_work: AtWork):
    at_work.begin("write a.txt: a")
    plain = at_work.ask(Update(project=P, user=U, prompt="write c.txt: c"))
    assert old_claim(at_work, plain), "other jobs it does"
    jobs.cancel(at_work.conn, plain)
    at_work.conn.execute(
        "update jobs set state = 'cancelled', lease_until = null, finished_at = now() where id = %s",
        (plain,),
    )
    asked = at_work.ask(
        Update(race=2, race_by="smallest", check="true", project=P, user=U, prompt="x")
    )
    assert not old_claim(at_work, asked)
    assert at_work.job(asked).state == "queued"
    assert at_work.run(asked).state == "waits"
    one = racers(at_work, asked)[0].id
    assert not old_claim(at_work, one)
    assert at_work.run(one).state == "done"


def old_claim(at_work: AtWork, job: UUID) -> bool:
    """Claim it as the first release's workers did, word for word."""
    asked = {
        "id": job,
        "attempt": uuid4(),
        "lease": timedelta(seconds=30),
        **dict.fromkeys(("worker_id", "host", "boot", "credential"), "old"),
        **dict.fromkeys(("pid", "pid_started"), 1),
        "workspaces": "/srv",
    }
    return at_work.conn.execute(CLAIM, asked).fetchone() is not None


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


def test_a_cancel_of_one_of_a_race_ends_that_one_alone(at_work: AtWork):
    asked = begun(at_work, check="true")
    jobs.cancel(at_work.conn, racers(at_work, asked)[1].id)
    assert states(at_work, asked) == ["queued", "cancelled", "queued"]
    assert at_work.run(asked).state == "waits"
    run(at_work, asked, 3)
    at_work.run(asked)
    assert at_work.run(asked).state == "done"
    assert states(at_work, asked) == ["cancelled", "cancelled", "done"]


def test_a_version_that_was_cancelled_is_not_kept_as_the_nearest(at_work: AtWork):
    asked = begun(at_work, race=2, check=["true", "false"])
    for number in (1, 2):
        run(at_work, asked, number, ["true", "true", "false"] if number == 2 else None)
    cancelled = "update jobs set state = 'cancelled' where id = %s"
    at_work.conn.execute(cancelled, (racers(at_work, asked)[1].id,))
    at_work.run(asked)
    (branch,) = branches.of_project(at_work.conn, P)
    assert branch.lane == racers(at_work, asked)[0].lane


def test_the_branches_of_a_cancelled_race_go_with_the_next_clean_up(at_work: AtWork):
    asked = begun(at_work, check="true")
    run(at_work, asked, 1)
    long = timedelta(days=30)
    assert upkeep.drop_branches(at_work.conn, long) == [], "it is under way"
    jobs.cancel(at_work.conn, asked)
    of_two, of_three = (job.lane for job in racers(at_work, asked)[1:])
    taken_up = "update jobs set args = args - 'racer' where lane = %s"
    at_work.conn.execute(taken_up, (of_three,))
    upkeep.drop_branches(at_work.conn, long)
    assert [one.lane for one in branches.of_project(at_work.conn, P)] == [of_three]
    told = at_work.events("branch.dropped")
    assert [one["why"] for one in told] == ["race", "race"]
    assert of_two in [one["branch"] for one in told]
    assert violations(at_work.conn) == []


def test_one_of_a_race_that_is_asked_for_again_is_an_update_like_any(at_work: AtWork):
    asked = begun(at_work, race=2, check="true")
    run(at_work, asked, 1)
    at_work.run(asked)
    at_work.run(asked)
    jobs.cancel(at_work.conn, asked)  # what would follow
    again = jobs.again(at_work.conn, racers(at_work, asked)[0].id)
    assert again
    assert again.lane == "main"
    assert [job.kind for job in at_work.chain_of(again.id)] == [
        "build",
        "metadata",
        "compaction",
    ]


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


def test_a_budget_holds_for_the_sum_of_a_race(at_work: AtWork):
    each = at_work.begin("write 0.txt: 0").id
    turn = float(at_work.value("select cost_usd from turns where job_id = %s", each))
    budget = turn * 2.5
    asked = begun(at_work, race=2, budget=budget, check="date +%N; exit 1", check_tries=9)
    for number in (1, 2):
        run(at_work, asked, number)
    for job in racers(at_work, asked):
        assert "the budget is used up" in str(job.error)
        (only,) = at_work.turns(job.id)
        assert budget / 2 <= float(only["cost_usd"]) < budget, "of the whole there is a rest"
