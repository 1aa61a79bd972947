"""The ledger stays true whatever a CLI does with session ids."""

from typing import Any

import pytest

from db.projects import branches
from db.transcripts import transcripts
from dev.agents.scripted import Ids, scripted
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.agent import relation
from worker.client import Build, ChatPlan, Update
from worker.session import ladder


@pytest.mark.parametrize(
    ("ids", "seen"),
    [("fork", "forked"), ("keep", "continued"), ("roll", "rolled"), ("reset", "reset")],
)
def test_what_was_asked_and_what_came_back_are_both_recorded(
    at_work: AtWork, ids: Ids, seen: str
):
    agent = scripted(ids)
    jobs = [at_work.build(f"prompt {n}", agent=agent) for n in range(3)]
    assert [job.state for job in jobs] == ["done"] * 3
    (first,), (second,), (third,) = (at_work.turns(job.id) for job in jobs)
    assert first["relation"] == "fresh"
    assert second["relation"] == third["relation"] == seen
    assert third["parent_session_id"] == second["observed_session_id"]
    asked = third["minted_session_id"] == third["observed_session_id"]
    assert asked == (ids in ("fork", "reset"))
    assert_in_step(at_work)


@pytest.mark.parametrize("ids", ["fork", "keep", "roll", "reset"])
def test_each_turn_is_charged_once(at_work: AtWork, ids: Ids):
    agent = scripted(ids, cost_usd=0.25)
    for n in range(3):
        at_work.build(f"prompt {n}", agent=agent)
    assert at_work.value("select sum(cost_usd) from turns") == 3 * 0.25
    assert at_work.value("select sum(cost_usd) from project_ai_session_metrics") == 3 * 0.25


@pytest.mark.parametrize("ids", ["fork", "keep", "roll", "reset"])
def test_the_ledger_of_whole_chains_is_true_whatever_becomes_of_the_ids(
    at_work: AtWork, ids: Ids
):
    """Builds, metadata and compactions: transitions, registry, transcripts and costs."""
    at_work.configure(BATON_COMPACT="always")
    at_work.agent = scripted(ids, says='{"summary": "none", "recommendations": []}')
    for ask in (Build, Update):
        done = at_work.chain(ask(project=P, user=U, prompt="go on"))
        assert [job.state for job in done] == ["done"] * 3
    assert violations(at_work.conn, ended=True) == []
    assert_in_step(at_work)

    moved_to = {new for *_, new, _ in at_work.moves()}
    registry = dict(at_work.rows("select session_id, status from project_ai_session_metrics"))
    assert registry.keys() == moved_to
    assert {name for name, status in registry.items() if status == "active"} == {at_work.head()}
    assert len(moved_to) == (1 if ids == "keep" else len(at_work.moves()))
    parents = dict(
        at_work.rows("select session_id, parent_session_id from project_ai_session_metrics")
    )
    for source, _, old, new, parent in at_work.moves():
        assert parent == (None if old is None or source == "fallback" else old)
        assert ids == "keep" or parents[new] == parent
        assert ladder.look(at_work.conn, P, new).reason is None
    committed = at_work.rows(
        "select cost_usd, cli_version from turns where outcome = 'committed'"
    )
    spent = at_work.value("select sum(cost_usd) from project_ai_session_metrics")
    assert spent == sum(cost for cost, _ in committed) == 0.25 * len(committed)
    assert {version for _, version in committed} == {"scripted"}


def test_an_agent_that_keeps_ids_adds_nothing_to_another_line(at_work: AtWork):
    at_work.build("main", agent=scripted())
    head = at_work.head()
    assert head
    before = transcripts.load(at_work.conn, P, head)
    beside = ChatPlan(project=P, user=U, prompt="beside", branch_from=head)
    job = at_work.one(beside, scripted("keep"))
    assert (job.state, job.error_class) == ("queued", "capture_incomplete")
    assert "a session of another line of work: nothing was added" in (job.error or "")
    assert transcripts.load(at_work.conn, P, head) == before

    assert at_work.again(job.id, scripted()).state == "done"
    (branch,) = branches.of_project(at_work.conn, P)
    more = ChatPlan(project=P, user=U, prompt="more", branch_from=branch.head)
    assert at_work.one(more, scripted("keep")).state == "done", "its own session"
    assert at_work.build("go on", agent=scripted("keep")).state == "done"
    assert at_work.head() == head, "and the main line its own"
    assert violations(at_work.conn) == []


def test_a_reset_is_a_fallback_that_people_are_told_of(at_work: AtWork):
    at_work.build("one", agent=scripted())
    before = at_work.head()
    at_work.build("two", agent=scripted("reset"))
    assert at_work.moves()[-1] == ("fallback", "agent_reset", before, at_work.head(), None)
    (told,) = at_work.events("session.resume_failed")
    assert told["code"] == "agent_reset"


def test_a_session_that_is_somebody_elses_is_not_believed(at_work: AtWork):
    at_work.build("one", agent=scripted())
    older = at_work.head()
    at_work.build("two", agent=scripted())
    head = at_work.head()

    def confused(request: Any, **more: Any) -> Any:
        from dataclasses import replace

        return replace(scripted()(request, **more), session=older, relation="rolled")

    job = at_work.build("three", agent=confused)
    assert (job.state, job.error_class) == ("queued", "capture_incomplete")
    assert at_work.head() == head


def test_an_id_tells_what_became_of_the_parent():
    assert relation("new", minted="new", parent=None) == "fresh"
    assert relation("other", minted="new", parent=None) == "fresh"
    assert relation("new", minted="new", parent="old") == "forked"
    assert relation("old", minted="new", parent="old") == "continued"
    assert relation("other", minted="new", parent="old") == "rolled"


def assert_in_step(at_work: AtWork) -> None:
    """Invariants 3, 4 and 5: head, versions and the path of moves agree."""
    moves = at_work.moves()
    assert at_work.head() == moves[-1][3]
    assert [old for _, _, old, _, _ in moves] == [None, *(new for *_, new, _ in moves[:-1])]
    for version, session in at_work.rows(
        "select version_id, ai_session_id from project_versions"
    ):
        assert session == at_work.value(
            """
            select new_session_id from session_transitions where version_id = %s
             order by id desc limit 1
            """,
            version,
        )
