"""A commit is all or nothing: under the fence, from the head it says, once a step."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection
from psycopg.errors import UniqueViolation

from db.core import events
from db.jobs import attempts
from db.jobs.attempts import Claimed
from db.projects import heads, projects
from db.sessions import chat, registry, turns
from db.sessions.turns import Try
from tests.invariants import violations
from tests.ledger import (
    LEASE,
    RUNNER,
    advance,
    ask,
    at_once,
    begun,
    built,
    claim,
    commit,
    contents,
    finish,
    job_row,
    next_job,
    one,
    published,
    sent,
    turn,
    types,
)


def metric(conn: Connection, session: str | None, columns: LiteralString) -> Any:
    (row,) = conn.execute(
        f"select {columns} from project_ai_session_metrics where session_id = %s", (session,)
    ).fetchall()
    return row[0] if len(row) == 1 else row


def test_a_commit_moves_the_head_and_all_that_belongs_to_it(conn: Connection):
    job = begun(conn, version="v1")
    minted = turn(conn, job)
    following = next_job()
    moved = advance(
        conn,
        job,
        minted,
        following=following,
        version_id="v1",
        new_version=True,
        tree="c0ffee",
        chat=[("user", "make it"), ("assistant", "made")],
        result={"text": "made"},
        raw_cost_usd=0.25,
        input_tokens=5,
        cli_version="2.0",
    )
    assert moved
    assert moved.cost_usd == 0.25
    assert [(event["seq"], event["type"]) for event in moved.told] == [
        (4, "session.moved"),
        (5, "job.done"),
        (6, "job.queued"),
    ]
    assert [(m.id, m.kind, m.published) for m in moved.messages] == [
        (following.id, "metadata", 0)
    ]
    project = projects.get(conn, "p")
    assert project
    assert (project.last_ai_session_id, project.event_seq) == (minted, 6)
    assert project.last_ai_session_updated_at
    version = projects.latest_version(conn, "p")
    assert version
    assert (version.ai_session_id, version.tree, version.status) == (minted, "c0ffee", "built")
    assert version.ai_session_created_at == version.ai_session_last_used_at
    (move,) = projects.session_chain(conn, "p")
    assert (move["old_session_id"], move["parent_session_id"]) == (None, None)
    assert (move["source"], move["version_id"], move["job_id"]) == ("build", "v1", job.id)
    assert metric(conn, minted, "status, input_tokens, cli_version, user_id, resumed") == (
        *("active", 5, "2.0", "u", False),
    )
    assert chat.past(conn, "p", lane="main", head=minted, user_id="u").said == [
        ("user", "make it"),
        ("assistant", "made"),
    ]
    assert job_row(conn, job.id, "state, result, lease_until") == (
        "done",
        {"text": "made"},
        None,
    )
    assert job_row(conn, following.id, "state, chain_id, parent_id, previous_session_id") == (
        *("queued", job.id, job.id, minted),
    )
    assert types(conn) == [
        *("job.queued", "chat.said", "job.started", "session.moved", "job.done", "job.queued"),
    ]
    assert violations(conn) == []


RIGHTS_LOST: list[LiteralString] = [
    "update jobs set attempt = gen_random_uuid() where state = 'running'",
    "update jobs set lease_until = now() - interval '1 ms' where state = 'running'",
    "update jobs set state = 'queued', lease_until = null",
    "update jobs set state = 'cancelled', finished_at = now(), lease_until = null",
    "update turns set outcome = 'failed'",
    "delete from turns",
    "delete from projects",
]


def test_a_commit_without_its_right_writes_nothing_at_all(
    conn: Connection, subtests: pytest.Subtests
):
    job, waiting = begun(conn), ask(conn)
    minted = turn(conn, job)
    for change in RIGHTS_LOST:
        with subtests.test(change), conn.transaction(force_rollback=True):
            conn.execute(change)
            before = contents(conn)
            assert advance(conn, job, minted, following=next_job(), new_version=True) is None
            assert advance(conn, job, minted) is None  # nor is the next of the lane woken
            assert contents(conn) == before
            assert one(conn, "select count(*) from lane_ends") == 0
    assert advance(conn, job, minted)
    assert published(conn) == [waiting]


def test_a_commit_from_another_head_writes_nothing_at_all(conn: Connection):
    built(conn)
    job = begun(conn, "update")
    minted = turn(conn, job)
    before = contents(conn)
    for old in (None, str(uuid4()), minted):
        assert advance(conn, job, minted, old=old, following=next_job()) is None
        assert advance(conn, job, minted, old=old, chat=[("user", "x")]) is None
    assert contents(conn) == before


def test_a_session_of_another_project_does_not_become_the_head(conn: Connection):
    theirs = built(conn, "theirs")
    job = begun(conn)
    minted = turn(conn, job)
    before = contents(conn)
    with pytest.raises(UniqueViolation, match="project_ai_session_metrics_pkey"):
        advance(conn, job, minted, new=theirs.head)
    assert contents(conn) == before


def test_of_eight_commits_at_once_one_wins(conn: Connection, dsn: str):
    job = begun(conn)
    minted = turn(conn, job)
    found = at_once(dsn, lambda own: advance(own, job, minted, following=next_job()))
    assert len([moved for moved in found if moved]) == 1
    assert one(conn, "select count(*) from jobs") == 2
    assert violations(conn) == []


def test_a_step_whose_session_keeps_its_id_is_not_recorded_twice(conn: Connection, dsn: str):
    """The head is the same before and after, so the compare-and-swap alone would not tell."""
    head = built(conn).head
    job = begun(conn, "update")
    minted = turn(conn, job)

    def again(own: Connection) -> Any:
        return advance(own, job, minted, new=head, relation="continued", final=False)

    assert len([moved for moved in at_once(dsn, again) if moved]) == 1
    assert again(conn) is None
    assert one(conn, "select count(*) from session_transitions") == 2
    assert violations(conn) == []


def test_a_step_is_recorded_once_whoever_runs_it_again(conn: Connection):
    job = begun(conn, "chat_plan")
    job = commit(conn, job, step="recommendations", final=False)
    assert [turn.step for turn in turns.begun(conn, job) if turn.outcome == "committed"] == [
        "recommendations"
    ]
    minted = turn(conn, job, "recommendations")
    assert advance(conn, job, minted, step="recommendations", final=False) is None
    assert projects.get(conn, "p").last_ai_session_id == job.head  # pyright: ignore[reportOptionalMemberAccess]


def test_each_step_of_a_job_moves_the_head_at_once(conn: Connection):
    following = next_job()
    first = built(conn, following=following).head
    job = claim(conn, following.id)
    assert job
    job = commit(conn, job, step="one", final=False, version_id="v1", source="metadata")
    assert job_row(conn, job.id) == "running"
    second = job.head
    job = commit(conn, job, step="two", version_id="v1", source="metadata")
    assert [move["new_session_id"] for move in projects.session_chain(conn, "p")] == [
        *(job.head, second, first),
    ]
    assert one(conn, "select ai_session_id from project_versions") == job.head
    assert metric(conn, second, "status") == "disconnected"
    assert violations(conn) == []


def test_what_a_turn_cost_is_the_difference_from_its_parent(conn: Connection):
    costs = list[float]()
    for raw in (0.10, 0.25, 0.25, 0.05):  # the last: a counter that began anew
        job = built(conn, raw_cost_usd=raw)
        costs.append(float(metric(conn, job.head, "cost_usd")))
        assert not metric(conn, job.head, "cost_estimated")
    assert costs == pytest.approx([0.10, 0.15, 0.0, 0.05])
    assert violations(conn) == []


def test_a_cost_that_is_not_known_is_marked(conn: Connection):
    silent = built(conn, raw_cost_usd=None).head
    assert metric(conn, silent, "cost_usd, cost_estimated") == (0, True)
    after = built(conn, raw_cost_usd=0.5).head  # with the silent one's in it
    assert metric(conn, after, "cost_usd::float8, cost_estimated") == (0.5, True)
    third = built(conn, raw_cost_usd=0.75).head
    assert metric(conn, third, "cost_usd::float8, cost_estimated") == (0.25, False)
    assert violations(conn) == []


def test_a_failed_turns_cost_is_the_difference_too(conn: Connection):
    built(conn, raw_cost_usd=1.0)
    job = begun(conn, "update")
    for raw in (1.0, 1.5):
        minted = turn(conn, job)
        turns.fail(conn, job, minted=minted, error_class="overloaded", raw_cost_usd=raw)
    rows = conn.execute(
        "select cost_usd::float8, error_class from turns where outcome = 'failed' order by id"
    ).fetchall()
    assert rows == [(0.0, "overloaded"), (0.5, "overloaded")]
    parent = job.head
    assert parent
    assert turns.failures(conn, job.id, parent=parent, classes={"overloaded"}) == 2
    commit(conn, job, raw_cost_usd=1.25)
    assert violations(conn) == []


def test_a_session_that_keeps_its_id_is_touched_and_its_figures_are_added(conn: Connection):
    head = built(conn, raw_cost_usd=0.5, input_tokens=10, context_tokens=100).head
    conn.execute(
        "update project_ai_session_metrics set stale_at = now(), status = 'expired',"
        " last_used_at = now() - interval '2 days'"
    )
    before = one(conn, "select last_ai_session_updated_at from projects")
    job = begun(conn, "chat_plan")
    commit(
        *(conn, job),
        new=head,
        relation="continued",
        source="chat_plan",
        chat_plan=True,
        raw_cost_usd=0.75,
        input_tokens=7,
        context_tokens=150,
    )
    commit(
        conn, begun(conn, "chat_plan"), new=head, relation="continued", chat_plan=True
    )  # and again
    assert one(conn, "select last_ai_session_updated_at from projects") > before
    assert metric(
        conn, head, "cost_usd::float8, input_tokens, turns_since_start, stale_at"
    ) == (*(0.75, 17, 3, None),)
    assert metric(conn, head, "status, last_used_at > now() - interval '1 min'") == (
        "active",
        True,
    )
    assert one(conn, "select count(*) from chat_plan_sessions") == 1
    assert violations(conn) == []


def test_turns_are_counted_since_the_session_began_or_was_compacted(conn: Connection):
    def counted(**more: Any) -> int:
        return metric(conn, built(conn, **more).head, "turns_since_start")

    assert [counted(), counted(), counted()] == [1, 2, 3]
    assert [counted(compacted=True, summary="so far"), counted()] == [0, 1]
    assert counted(parent=None, relation="fresh", source="reset", reason="reset") == 1
    head = one(conn, "select last_ai_session_id from projects")
    assert chat.past(conn, "p", lane="main", head=head, user_id="u").summary == "so far"


def test_a_resume_that_the_agent_dropped_is_a_failed_one(conn: Connection):
    first = built(conn).head
    commit(
        conn,
        begun(conn),
        parent=None,
        relation="reset",
        source="fallback",
        reason="agent_reset",
    )
    rows = conn.execute(
        "select session_id, outcome, reason from session_resume_attempts order by id"
    ).fetchall()
    assert rows == [(None, "fresh", None), (first, "failed", "agent_reset")]


def test_every_candidate_is_recorded_before_the_prompt_is_sent(conn: Connection):
    built(conn)
    job = begun(conn, "update")
    tries = [Try("a'b\"c", "rejected", "not_found"), Try(job.head, "trying")]
    begin: dict[str, Any] = {"step": "build", "parent": job.head, "minted": "m", "tries": tries}
    assert not turns.begin(conn, replace(job, attempt=uuid4()), **begin)
    assert (
        one(conn, "select count(*) from session_resume_attempts where job_id = %s", job.id) == 0
    )
    assert turns.begin(conn, job, **begin)
    rows = conn.execute(
        "select session_id, outcome, reason from session_resume_attempts where job_id = %s"
        " order by id",
        (job.id,),
    ).fetchall()
    assert rows == [("a'b\"c", "rejected", "not_found"), (job.head, "trying", None)]


def test_a_fresh_start_that_was_asked_for_during_a_turn_is_for_the_next_one(conn: Connection):
    built(conn)
    running = begun(conn, "update")
    projects.begin_fresh(conn, "p")
    commit(conn, running)
    asked = begun(conn, "update")
    assert asked.fresh_next
    commit(conn, asked, parent=None, relation="fresh", source="reset", reason="asked_fresh")
    assert not begun(conn, "update").fresh_next


def test_ids_of_the_product_are_only_text(conn: Connection):
    name = "a+b=c@d:e._-"
    job = begun(conn, project=name, version="v@1+=", user_id="x|y/z")
    done = commit(
        *(conn, job),
        version_id="v@1+=",
        new_version=True,
        result={"text": 'it\'s "quoted" \\ $1 %s'},
        chat=[("user", "'; drop table projects; --")],
        files=["it's", "$1 %s"],
        reason="it's",
    )
    past = chat.past(conn, name, lane="main", head=done.head, user_id="x|y/z")
    assert past.said == [("user", "'; drop table projects; --")]
    assert past.files == ["it's", "$1 %s"]
    assert job_row(conn, job.id, "result ->> 'text'") == 'it\'s "quoted" \\ $1 %s'
    assert violations(conn) == []


def test_a_cancel_in_time_lets_the_commit_stand_and_nothing_follow(conn: Connection):
    job, waiting = begun(conn), ask(conn)
    minted = turn(conn, job)
    conn.execute("update jobs set cancel_requested_at = now() where id = %s", (job.id,))
    moved = advance(conn, job, minted, following=next_job())
    assert moved
    assert [event["type"] for event in moved.told] == ["session.moved", "job.done"]
    assert moved.messages == []
    assert published(conn) == [waiting]
    assert job_row(conn, job.id) == "done"
    assert one(conn, "select count(*) from jobs") == 2
    assert types(conn)[-4:-1] == [
        "session.moved",
        "job.done",
        "job.queued",
    ]  # of the one waiting
    assert violations(conn) == []


def test_a_newer_request_stops_the_chain_at_the_next_commit(conn: Connection):
    job = begun(conn)
    newer = ask(conn, busy="interrupt")
    moved = advance(conn, job, turn(conn, job), following=next_job())
    assert moved
    assert moved.messages == []
    assert published(conn) == [newer]
    assert claim(conn, newer)


def test_the_end_of_a_chain_wakes_the_next_of_its_lane_if_it_is_due(conn: Connection):
    first = begun(conn)
    later = ask(conn, run_at=datetime.now(UTC) + timedelta(hours=1))
    second, third = ask(conn), ask(conn)
    assert published(conn) == []
    moved = advance(conn, first, turn(conn, first))
    assert moved
    assert published(conn) == [second]  # a date holds no place
    running = claim(conn, second)
    assert running
    assert finish(conn, running, "failed")
    assert published(conn) == [third]
    assert job_row(conn, later, "ready, scheduled") == (False, True)


def test_a_finish_under_a_replaced_attempt_writes_nothing(conn: Connection):
    job = begun(conn)
    before = contents(conn)
    assert finish(conn, replace(job, attempt=uuid4()), "failed", next_job()) is None
    assert contents(conn) == before
    assert finish(conn, job, "failed")
    before = contents(conn)
    assert finish(conn, job, "failed") is None
    assert contents(conn) == before


def test_failed_metadata_still_compacts(conn: Connection):
    job = begun(conn, "chat_plan")
    turn(conn, job, "recommendations")
    following = next_job("compaction")
    ended = finish(conn, job, "failed", following)
    assert ended
    assert [(m.id, m.kind) for m in ended[1]] == [(following.id, "compaction")]
    assert job_row(conn, job.id) == "failed"
    assert job_row(conn, following.id, "kind, state, chain_id") == (
        *("compaction", "queued", job.id),
    )
    assert one(conn, "select outcome from turns") == "failed"
    assert violations(conn) == []


def test_a_commit_and_a_rewind_that_meet_are_one_after_the_other(conn: Connection, dsn: str):
    first = built(conn).head
    second = built(conn)
    assert first
    projects.rewind(conn, "p", first)
    assert violations(conn) == []
    newest = projects.session_chain(conn, "p")[0]
    assert (newest["source"], newest["old_session_id"]) == ("operator", second.head)
    job = begun(conn, "update")
    assert job.head == first
    with pytest.raises(heads.HeadHeld, match="is running: wait for it, or cancel it"):
        projects.rewind(conn, "p", first)
    assert advance(conn, job, turn(conn, job))
    for wrong in ("nonsense", str(uuid4())):
        with pytest.raises(heads.HeadHeld, match="never a head"):
            projects.rewind(conn, "p", wrong)
    registry.condemn(conn, first)
    with pytest.raises(heads.HeadHeld, match="cannot be resumed"):
        projects.rewind(conn, "p", first)
    with pytest.raises(heads.HeadHeld, match="is unknown"):
        projects.rewind(conn, "q", first)
    with pytest.raises(heads.HeadHeld, match="is unknown"):
        projects.begin_fresh(conn, "q")


def test_events_have_no_gap_when_four_projects_are_busy_at_once(conn: Connection, dsn: str):
    """Chains, loose events and cancels of each project from several connections."""
    names = [f"p{n}" for n in range(4)]
    for name in names:
        ask(conn, project=name)

    def work(number: int) -> None:
        name = names[number % 4]
        with psycopg.connect(dsn, autocommit=True) as own:
            for _ in range(6):
                events.append(own, name, [events.Event("noise", None)] * 2)
                ask(own, project=name)
                waiting = own.execute(
                    "select id from jobs where project_id = %s and state = 'queued'", (name,)
                ).fetchall()
                for (each,) in waiting:
                    if (job := claim(own, each)) and advance(own, job, turn(own, job)):
                        break

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert violations(conn) == []
    for name in names:
        rows = conn.execute(
            "select seq, at from events where project_id = %s order by seq", (name,)
        ).fetchall()
        assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
        replay = [row.seq for row in events.since(conn, name, 5, limit=1000)]
        assert replay == list(range(6, len(rows) + 1))


def test_a_number_is_not_seen_before_the_one_below_it(conn: Connection, dsn: str):
    """In commit order: an undecided event holds back those after it, and a rollback leaves no gap."""
    ask(conn)
    with psycopg.connect(dsn) as slow, ThreadPoolExecutor() as threads:
        (undecided,) = events.append(slow, "p", [events.Event("a", None)])
        later = threads.submit(events.append, conn, "p", [events.Event("b", None)])
        slow.rollback()
        (first,) = later.result(10)
    assert (undecided["seq"], first["seq"]) == (1, 1)
    assert events.append(conn, "nobody", [events.Event("a", None)]) == []


def counted(dsn: str, work: Callable[[Connection], object]) -> int:
    """How many statements the work sends, each a transaction of its own."""
    with psycopg.connect(dsn, autocommit=True) as own:
        statements = sent(own)
        work(own)
    return len(statements)


def test_a_claim_a_commit_and_a_finish_are_one_statement_each(conn: Connection, dsn: str):
    asked = ask(conn)
    running = list[Claimed]()

    def take(own: Connection) -> None:
        job = attempts.claim(own, asked, attempt=uuid4(), runner=RUNNER, lease=LEASE, limit=3)
        assert job
        running.append(job)

    assert counted(dsn, take) == 1
    minted = turn(conn, running[0])
    following = next_job()
    commits: dict[str, Any] = {"following": following, "chat": [("user", "x")]}
    assert counted(dsn, lambda own: advance(own, running[0], minted, **commits)) == 1
    metadata = claim(conn, following.id)
    assert metadata
    assert counted(dsn, lambda own: finish(own, metadata, "failed")) == 1
    assert job_row(conn, metadata.id) == "failed"


def test_a_lease_that_is_renewed_in_time_is_committed_under(conn: Connection):
    job = begun(conn)
    minted = turn(conn, job)
    conn.execute("update jobs set lease_until = now() - interval '1 s'")
    assert attempts.renew(conn, job.id, job.attempt, timedelta(seconds=30)) == "go on"
    assert advance(conn, job, minted)
