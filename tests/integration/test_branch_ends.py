"""Branches end: dropped, unused for too long, promoted; and no job is left without its branch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import Connection, errors

from db.core.codes import refusal
from db.jobs import endings, jobs
from db.jobs.attempts import Claimed
from db.operations import upkeep
from db.projects import branches
from db.projects.branches import Branch
from db.projects.heads import HeadHeld
from db.transcripts import appends, listings
from dev.agents.scripted import scripted
from tasks import upkeep as periodic
from tests.invariants import violations
from tests.ledger import (
    ask,
    at_once,
    begun,
    blocked,
    built,
    claim,
    commit,
    contents,
    job_row,
    one,
    types,
)
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.broker.publish import stream
from worker.client import ChatPlan
from worker.live.checkpoints import PROGRESS, client

pytestmark = pytest.mark.agent("direct")

DAY = timedelta(days=1)


def ask_beside(conn: Connection[Any], session: str | None) -> UUID:
    return ask(conn, "chat_plan", options={"branch_from": session})


def beside(conn: Connection, session: str | None) -> Claimed:
    """A turn on the branch that follows from the session, done."""
    job = claim(conn, ask_beside(conn, session))
    assert job
    return commit(conn, job, source="chat_plan")


def only(conn: Connection) -> Branch:
    (branch,) = branches.of_project(conn, "p")
    return branch


def age(conn: Connection, lane: str, days: int) -> None:
    """Let a branch have had nothing to do for so long."""
    past = f"now() - interval '{days} days'"
    conn.execute(f"update branches set updated_at = {past} where lane = %s".encode(), (lane,))
    conn.execute(
        f"update jobs set finished_at = {past} where lane = %s and finished_at is not null".encode(),
        (lane,),
    )


def test_a_dropped_branch_is_gone_and_what_it_cost_is_not(conn: Connection):
    main = built(conn).head
    on_it = beside(conn, main)
    beside(conn, on_it.head)
    branch = only(conn)
    costs = "select count(*), sum(cost_usd) from turn_costs where source = 'branch'"
    before = conn.execute(costs).fetchone()
    assert before
    assert before[0] == 2
    branches.drop(conn, "p", branch.lane)
    assert branches.of_project(conn, "p") == []
    for session in (on_it.head, branch.head):
        with pytest.raises(psycopg.Error, match="of a branch that was dropped") as refused:
            ask_beside(conn, session)
        assert refusal(refused.value)
    assert beside(conn, main).lane != branch.lane, "the main line's session is not the branch's"
    assert (
        conn.execute(costs + " and session_id <> %s", (only(conn).head,)).fetchone() == before
    )
    told = one(conn, "select body from events where type = 'branch.dropped'")
    assert told == {"branch": branch.lane, "head": branch.head, "why": "operator"}
    assert violations(conn) == []


def test_a_branch_that_is_unknown_or_promoted_or_has_work_is_not_dropped(conn: Connection):
    built(conn)
    waiting = ask_beside(conn, built(conn).head)
    lane = job_row(conn, waiting, "lane")
    before = contents(conn)
    with pytest.raises(HeadHeld, match="no branch branch-x: see `baton branches p`"):
        branches.drop(conn, "p", "branch-x")
    with pytest.raises(HeadHeld, match=f"Job {waiting} of the branch is open"):
        branches.drop(conn, "p", lane)
    assert contents(conn) == before
    job = claim(conn, waiting)
    assert job
    with pytest.raises(HeadHeld, match="is open"):
        branches.drop(conn, "p", lane)
    commit(conn, job)
    branches.promote(conn, "p", lane)
    with pytest.raises(HeadHeld, match="is promoted already"):
        branches.drop(conn, "p", lane)
    assert "branch.dropped" not in types(conn)


def test_a_branch_whose_first_job_was_cancelled_can_be_dropped(conn: Connection):
    waiting = ask_beside(conn, built(conn).head)
    jobs.cancel(conn, waiting)
    branches.drop(conn, "p", job_row(conn, waiting, "lane"))
    assert branches.of_project(conn, "p") == []


def test_a_job_of_a_dropped_branch_is_not_retried(conn: Connection):
    job = beside(conn, built(conn).head)
    branches.drop(conn, "p", job.lane)
    before = contents(conn)
    with pytest.raises(psycopg.Error, match="branch of that job was dropped: ask") as refused:
        jobs.again(conn, job.id)
    assert refusal(refused.value)
    assert contents(conn) == before


def test_what_another_branch_began_from_stays_until_that_one_goes(conn: Connection):
    job = beside(conn, built(conn).head)
    middle, lane = job.head, job.lane
    assert beside(conn, middle).lane == lane
    other = beside(conn, middle)
    assert other.lane != lane
    branches.drop(conn, "p", lane)
    assert beside(conn, other.head).lane == other.lane
    assert beside(conn, middle).lane not in (lane, other.lane)
    for branch in branches.of_project(conn, "p"):
        branches.drop(conn, "p", branch.lane)
    with pytest.raises(psycopg.Error, match="was dropped"):
        ask_beside(conn, middle)


def test_the_transcripts_of_a_dropped_branch_go_in_their_time(conn: Connection):
    main = built(conn).head
    job = beside(conn, main)
    for session in (main, job.head):
        assert session
        with conn.transaction():
            appends.append(conn, "p", session, [{"type": "user", "uuid": session}])
    conn.execute("update transcript_sessions set updated_at = now() - interval '8 days'")
    assert upkeep.prune_transcripts(conn, 7 * DAY) == 0
    branches.drop(conn, "p", job.lane)
    assert listings.unreachable(conn, ["p"], idle=9 * DAY) == [], "not before"
    assert upkeep.prune_transcripts(conn, 7 * DAY) == 1
    assert one(conn, "select session_id from transcript_sessions") == main


def test_branches_that_nobody_uses_end_by_themselves(conn: Connection):
    head = built(conn).head
    unused, waits, failed, used, promoted = (beside(conn, head) for _ in range(5))
    branches.promote(conn, "p", promoted.lane)
    for job in (unused, waits, failed, used, promoted):
        age(conn, job.lane, 31)
    ask_beside(conn, waits.head)
    endings.finish(
        conn, begun(conn, "chat_plan", options={"branch_from": failed.head}),
        endings.End(state="failed"), [], DAY,
    )  # fmt: skip
    age(conn, used.lane, 29)
    assert [one.told[0]["body"] for one in upkeep.drop_branches(conn, 30 * DAY)] == [
        {"branch": unused.lane, "head": unused.head, "why": "idle"}
    ]
    assert upkeep.drop_branches(conn, 30 * DAY) == []
    left = {branch.lane for branch in branches.of_project(conn, "p")}
    assert left == {job.lane for job in (waits, failed, used, promoted)}
    assert types(conn)[-1] == "branch.dropped"


def test_one_page_drops_only_so_many_and_the_next_goes_on(conn: Connection):
    head = built(conn).head
    lanes = [beside(conn, head).lane for _ in range(3)]
    for days, lane in enumerate(lanes, start=1):
        age(conn, lane, days=2 + days)
    gone, after = branches.drop_unused(conn, DAY, limit=2)
    assert [each.told[0]["body"]["branch"] for each in gone] == [lanes[2], lanes[1]]
    rest, after = branches.drop_unused(conn, DAY, limit=2, after=after)
    assert ([each.told[0]["body"]["branch"] for each in rest], after) == ([lanes[0]], None)


def test_the_periodic_task_drops_them_and_lets_watchers_know(at_work: AtWork):
    at_work.agent = scripted()
    at_work.build("write a.txt: a")
    job = at_work.chat("say beside", branch_from=at_work.head())
    age(at_work.conn, job.lane, 31)
    periodic.drop_branches()
    assert branches.of_project(at_work.conn, P) == []
    assert at_work.rows("select name, result from ticks") == [("drop_branches", {"dropped": 1})]
    newest: Any = client(PROGRESS).xrevrange(stream(P), count=1)
    assert b"branch.dropped" in str(newest).encode()


# Races

End = Callable[[Connection[Any], str, str], Any]


@pytest.mark.parametrize("end", [branches.promote, branches.drop])
def test_a_branch_that_is_being_asked_for_a_job_does_not_end(
    conn: Connection, dsn: str, end: End
):
    job = beside(conn, built(conn).head)
    with psycopg.connect(dsn) as producer:
        asked = ask_beside(producer, job.head)
        with pytest.raises(HeadHeld, match="A transaction that is still open uses branch"):
            end(conn, "p", job.lane)
        age(conn, job.lane, 31)
        assert upkeep.drop_branches(conn, 30 * DAY) == []
    with pytest.raises(HeadHeld, match=f"Job {asked} of the branch is open"):
        end(conn, "p", job.lane)
    assert claim(conn, asked)


@pytest.mark.parametrize("end", [branches.promote, branches.drop])
def test_a_retry_that_is_under_way_keeps_its_branch(conn: Connection, dsn: str, end: End):
    job = beside(conn, built(conn).head)
    with psycopg.connect(dsn) as other:
        other.execute("select 1")  # in a transaction from here on
        again = jobs.again(other, job.id)
        assert again
        with pytest.raises(HeadHeld, match="still open"):
            end(conn, "p", job.lane)
    assert claim(conn, again.id)


def test_an_open_request_does_not_hold_up_the_commit_of_a_running_job(
    conn: Connection, dsn: str
):
    first = beside(conn, built(conn).head)
    running = begun(conn, "chat_plan", options={"branch_from": first.head})
    with psycopg.connect(dsn) as producer:
        asked = ask_beside(producer, first.head)
        conn.execute("set lock_timeout = '3s'")
        moved = commit(conn, running)
    assert only(conn).head == moved.head
    assert claim(conn, asked)


@pytest.mark.parametrize("middle", [False, True])
def test_who_asks_while_a_branch_is_dropped_is_refused(
    conn: Connection, dsn: str, middle: bool
):
    first = beside(conn, built(conn).head)
    newest = beside(conn, first.head)
    session = first.head if middle else newest.head
    with psycopg.connect(dsn) as operator, ThreadPoolExecutor() as threads:
        operator.execute("select 1")  # in a transaction from here on
        branches.drop(operator, "p", first.lane)
        asked = threads.submit(ask_beside, conn, session)
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the producer waits")
        operator.commit()
        with pytest.raises(psycopg.Error, match="of a branch that was dropped"):
            asked.result(10)


def test_who_asks_while_a_branch_is_promoted_begins_another(conn: Connection, dsn: str):
    job = beside(conn, built(conn).head)
    with psycopg.connect(dsn) as operator, ThreadPoolExecutor() as threads:
        operator.execute("select 1")  # in a transaction from here on
        branches.promote(operator, "p", job.lane)
        asked = threads.submit(ask_beside, conn, job.head)
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the producer waits")
        operator.commit()
        new = asked.result(10)
    found = claim(conn, new)
    assert found
    assert (found.lane != job.lane, found.head) == (True, job.head)


@pytest.mark.parametrize("end", [branches.promote, branches.drop])
def test_a_producer_that_looks_at_the_past_adds_no_job_to_a_branch_that_ended(
    conn: Connection, dsn: str, end: End
):
    job = beside(conn, built(conn).head)
    with psycopg.connect(dsn) as producer:
        producer.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        assert one(producer, "select count(*) from branches where promoted_at is null") == 1
        end(conn, "p", job.lane)
        with pytest.raises(errors.SerializationFailure):
            ask_beside(producer, job.head)


def test_of_requests_and_ends_at_once_no_job_is_left_without_a_branch(
    conn: Connection, dsn: str
):
    works: list[Callable[[Connection[Any], Branch, UUID], Any]] = [
        lambda own, branch, _: ask_beside(own, branch.head),
        lambda own, _, job: jobs.again(own, job),
        lambda own, branch, _: branches.drop(own, "p", branch.lane),
        lambda own, branch, _: branches.promote(own, "p", branch.lane, onto=main),
    ]
    for _ in range(6):
        main = built(conn).head
        job = beside(conn, main)
        branch = next(b for b in branches.of_project(conn, "p") if b.lane == job.lane)
        turns = iter(works * 2)

        def work(own: Connection[Any], turns: Any = turns, branch: Branch = branch,
                 job: Claimed = job) -> Any:  # fmt: skip
            try:
                return next(turns)(own, branch, job.id)
            except HeadHeld as exc:
                return exc

        told = at_once(dsn, work)
        assert all(refusal(each) for each in told if isinstance(each, psycopg.Error)), told
        assert violations(conn) == []
        for asked, lane in conn.execute(
            "select id, lane from jobs where finished_at is null order by pos"
        ).fetchall():
            found = claim(conn, asked)
            assert found, lane
            commit(conn, found)
        assert violations(conn) == []


def test_a_job_whose_branch_is_gone_all_the_same_fails_once_with_a_sentence(at_work: AtWork):
    at_work.build("write a.txt: a")
    asked = at_work.ask(ChatPlan(project=P, user=U, prompt="x", branch_from=at_work.head()))
    at_work.conn.execute("delete from branches")
    ran = at_work.run(asked)
    assert (ran.state, ran.error_class) == ("failed", "branch_gone")
    job = at_work.job(asked)
    assert (job.state, job.error_class, job.attempts) == ("failed", "branch_gone", 0)
    assert "The branch was promoted or dropped: ask anew" in (job.error or "")
    (told,) = at_work.events("job.failed")
    assert (told["error_class"], told["error"]) == (job.error_class, job.error)
    assert at_work.run(asked).state == "failed"
    assert len(at_work.events("job.failed")) == 1
    assert violations(at_work.conn) == []
