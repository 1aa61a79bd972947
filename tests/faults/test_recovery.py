"""A dead attempt's turn is taken up too if it had not begun from the head's own session."""

from pathlib import Path

import pytest

from db.jobs import jobs
from tests.dying import killed_after, killed_at, recovered
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.client import Build, Update

BROKE_OFF = "run: echo once | tee -a ran.txt\nrun: sleep 2\nwrite c.txt: c"


def lose_head(at_work: AtWork) -> str:
    """The head, which is not resumable any more; nor is anything before it."""
    at_work.build("write a.txt: a")
    at_work.conn.execute("update project_ai_session_metrics set is_resumable = false")
    head = at_work.head()
    assert head
    return head


def ran(at_work: AtWork) -> str:
    return (at_work.place / "ran.txt").read_text()


@pytest.mark.long
def test_a_fallback_that_broke_off_is_gone_on_from(at_work: AtWork):
    head = lose_head(at_work)
    asked = at_work.ask(Update(project=P, user=U, prompt=BROKE_OFF))
    partial = killed_after(at_work, asked, "once")
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("partial", "worker_died")]
    assert at_work.moves()[-1] == ("recovery", "worker_died", head, at_work.head(), partial)
    assert ran(at_work) == "once\n"
    assert at_work.model.requests[-1].prompts[-1].endswith(BROKE_OFF)
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_fallback_that_had_ended_is_committed_as_the_fallback_it_was(at_work: AtWork):
    head = lose_head(at_work)
    asked = at_work.ask(Update(project=P, user=U, prompt="write b.txt: b"))
    killed_at(at_work, asked, "turn.ended")
    calls = len(at_work.model.requests)
    assert at_work.run(asked).state == "done"
    assert len(at_work.model.requests) == calls
    assert recovered(at_work) == [("finished", "worker_died")]
    move = ("fallback", "not_resumable", head, at_work.head(), None)
    assert at_work.moves()[-1] == move
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_turn_that_was_to_begin_fresh_and_had_ended_is_committed(at_work: AtWork):
    at_work.begin("write a.txt: a")
    at_work.conn.execute("update projects set fresh_next = true")
    asked = at_work.ask(Update(project=P, user=U, prompt="write b.txt: b"))
    killed_at(at_work, asked, "turn.ended")
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("finished", "worker_died")]
    assert at_work.moves()[-1][:2] == ("reset", "asked_fresh")
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_templates_fork_that_broke_off_is_gone_on_from(at_work: AtWork):
    at_work.one(Build(project="shops", user="_template", prompt="say conventions"))
    request = Build(project=P, user=U, prompt=BROKE_OFF, template="shops")
    asked = at_work.ask(request)
    partial = killed_after(at_work, asked, "once")
    assert at_work.run(asked).state == "done"
    assert at_work.moves()[-1][0] == "recovery"
    assert at_work.moves()[-1][-1] == partial
    assert at_work.model.requests[-1].prompts[0] == "say conventions"
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_templates_fork_that_had_ended_is_committed(at_work: AtWork):
    at_work.one(Build(project="shops", user="_template", prompt="say conventions"))
    asked = at_work.ask(Build(project=P, user=U, prompt="say mine", template="shops"))
    killed_at(at_work, asked, "turn.ended")
    assert at_work.run(asked).state == "done"
    assert at_work.moves()[-1][:2] == ("build", "template")
    (turn,) = at_work.turns(asked)
    job = at_work.job(asked)
    assert job.result
    assert job.result["text"] == "mine"  # and nothing of the template's
    assert turn["outcome"] == "committed"
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_turn_may_be_gone_on_from_more_than_once(at_work: AtWork):
    at_work.begin("write a.txt: a")
    head = at_work.head()
    prompt = "run: echo once\nrun: sleep 1\nrun: echo twice\nrun: sleep 1\nwrite c.txt: c"
    asked = at_work.ask(Update(project=P, user=U, prompt=prompt))
    killed_after(at_work, asked, "once")
    second = killed_after(at_work, asked, "twice")
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("partial", "worker_died")] * 2
    source, _, old, _, parent = at_work.moves()[-1]
    assert (source, old, parent) == ("recovery", head, second)
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_worker_that_dies_before_it_went_on_leaves_what_there_was(at_work: AtWork):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Update(project=P, user=U, prompt=BROKE_OFF))
    partial = killed_after(at_work, asked, "once")
    killed_at(at_work, asked, "turn.recorded")
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("partial", "worker_died")] * 2
    assert at_work.moves()[-1][-1] == partial
    assert (at_work.place / "c.txt").read_text() == "c"
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_an_outage_of_the_model_costs_nothing_of_what_is_gone_on_from(at_work: AtWork):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Update(project=P, user=U, prompt=BROKE_OFF))
    partial = killed_after(at_work, asked, "once")
    at_work.configure(BATON_CLI_RETRIES="0")
    at_work.model.fault("529", times=1, when="You were interrupted")
    assert at_work.run(asked).error_class == "overloaded"
    assert at_work.again(asked).state == "done"
    assert at_work.moves()[-1][0] == "recovery"
    assert at_work.moves()[-1][-1] == partial
    assert violations(at_work.conn) == []


def test_a_turn_that_had_ended_and_changed_no_file_is_committed(at_work: AtWork):
    """Its commit of the workspace is the one that the head has already."""
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Update(project=P, user=U, prompt="say both"))
    killed_at(at_work, asked, "commit.before")
    calls = len(at_work.model.requests)
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("finished", "worker_died")]
    assert len(at_work.model.requests) == calls
    jobs.cancel(at_work.conn, asked)  # what follows it
    assert at_work.build("write b.txt: b").state == "done"
    assert at_work.events("workspace.kept_aside") == []
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_turn_without_a_change_waits_for_the_remote_as_often_as_it_must(at_work: AtWork):
    remote = Path.cwd() / "remote"
    remote.mkdir()
    at_work.configure(BATON_WORKSPACE_REMOTE=f"file://{remote}/{{project}}.git")
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Update(project=P, user=U, prompt="say both"))
    remote.rename(remote.with_name("away"))
    for _ in range(3):
        assert at_work.again(asked).error_class == "workspace_away"
    calls = len(at_work.model.requests)
    remote.with_name("away").rename(remote)
    assert at_work.again(asked).state == "done"
    assert len(at_work.model.requests) == calls
    said = [one for one in at_work.model.requests if one.prompt == "say both"]
    assert len({one.session for one in said}) == 1
    assert violations(at_work.conn) == []
