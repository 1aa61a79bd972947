"""What a dead attempt left is committed, gone on from, or given up: never done twice."""

import os
import shutil
import time
from datetime import timedelta
from multiprocessing import Value
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from db.jobs import attempts, jobs
from db.projects import projects
from db.sessions import turns
from tests.dying import killed_after, killed_at, recovered
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.agent import Request, Turn, Watch
from worker.agent.store import JobStore
from worker.client import Build, ChatPlan, Metadata, Update
from worker.process import drain, identity
from worker.session import recovery


def text(at_work: AtWork, name: str) -> str:
    return (at_work.place / name).read_text()


def test_a_turn_that_had_ended_is_committed_and_not_run_again(at_work: AtWork):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Update(project=P, user=U, prompt="write b.txt: b\nsay both"))
    killed_at(at_work, asked, "turn.ended")
    calls = len(at_work.model.requests)
    assert at_work.run(asked).state == "done"
    assert len(at_work.model.requests) == calls
    assert recovered(at_work) == [("finished", "worker_died")]
    (turn,) = at_work.turns(asked)
    assert (turn["outcome"], at_work.head()) == ("committed", turn["minted_session_id"])
    source, reason, *_ = at_work.moves()[-1]
    assert (source, reason) == ("update", "finished")
    result: Any = at_work.job(asked).result
    assert (result["files_created"], result["text"]) == (["b.txt"], "both")
    assert violations(at_work.conn) == []
    at_work.build("say next")
    assert at_work.model.requests[-1].prompts[:2] == (
        "write a.txt: a",
        "write b.txt: b\nsay both",
    )


def test_a_turn_that_git_was_killed_after_is_committed_and_not_run_again(
    at_work: AtWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Update(project=P, user=U, prompt="write b.txt: b\nsay both"))
    killed = tmp_path / "bin" / "git"
    killed.parent.mkdir()
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o755)

    def until_git_dies(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        turn = at_work.agent(request, store=store, watch=watch)
        monkeypatch.setenv("PATH", f"{killed.parent}:{os.environ['PATH']}")
        return turn

    ran = at_work.run(asked, until_git_dies)
    assert (ran.state, ran.error_class) == ("waits", "git_ended")
    killed.unlink()
    calls = len(at_work.model.requests)
    assert at_work.again(asked).state == "done"
    assert len(at_work.model.requests) == calls
    assert recovered(at_work) == [("finished", "git_ended")]
    assert text(at_work, "b.txt") == "b"
    assert violations(at_work.conn) == []


@pytest.mark.agent("direct")
def test_a_workspace_that_is_gone_at_the_end_of_a_turn_is_provided_and_the_turn_run_again(
    at_work: AtWork,
):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Update(project=P, user=U, prompt="write b.txt: b"))

    def and_all_is_gone(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        turn = at_work.agent(request, store=store, watch=watch)
        shutil.rmtree(request.cwd)
        return turn

    ran = at_work.run(asked, and_all_is_gone)
    assert (ran.state, ran.error_class) == ("waits", "workspace_missing")
    assert at_work.again(asked).state == "done"
    assert (text(at_work, "a.txt"), text(at_work, "b.txt")) == ("a", "b")
    assert violations(at_work.conn) == []


def test_a_job_whose_worker_is_told_to_go_in_all_its_processes_is_not_held_against_it(
    at_work: AtWork, monkeypatch: pytest.MonkeyPatch
):
    """SIGTERM to every process of a service, and Celery's cold shutdown."""
    asked = at_work.ask(Build(project=P, user=U, prompt="write b.txt: b\nsay both"))
    began = Value("d", 0.0, lock=False)
    monkeypatch.setattr(drain, "_began", began)

    def until_told(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        at_work.agent(request, store=store, watch=watch)
        began.value = time.monotonic()
        raise SystemExit(-15)

    with pytest.raises(SystemExit):
        at_work.run(asked, until_told)
    began.value = 0.0
    job = at_work.job(asked)
    assert (job.state, job.attempts, job.error_class) == ("queued", 0, "drained")
    calls = len(at_work.model.requests)
    assert at_work.run(asked).state == "done"
    assert len(at_work.model.requests) == calls
    assert recovered(at_work) == [("finished", "drained")]


def test_a_signal_to_its_process_alone_is_a_death_like_any_other(at_work: AtWork):
    """Else a job that eats up its host's memory would be run for ever."""
    asked = at_work.ask(Build(project=P, user=U, prompt="say hello"))

    def struck(*_: Any, **__: Any) -> Turn:
        raise SystemExit(-15)

    with pytest.raises(SystemExit):
        at_work.run(asked, struck)
    assert at_work.job(asked).state == "running", "the relay rescues it, and counts"


@pytest.mark.long
def test_a_turn_that_had_ended_is_committed_however_long_ago(at_work: AtWork):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(ChatPlan(project=P, user=U, prompt="say end"))
    killed_at(at_work, asked, "turn.ended")
    at_work.conn.execute(LONG_AGO)
    calls = len(at_work.model.requests)
    assert at_work.run(asked).state == "done"
    assert len(at_work.model.requests) == calls
    assert recovered(at_work) == [("finished", "worker_died")]


@pytest.mark.long
def test_a_turn_that_broke_off_long_ago_begins_again(at_work: AtWork):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Update(project=P, user=U, prompt="run: echo once\nrun: sleep 1"))
    killed_after(at_work, asked, "once")
    at_work.conn.execute(LONG_AGO)
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("lost", "stale")]


LONG_AGO = """
    update turns set ended_at = now() - interval '25 h', started_at = now() - interval '25 h'
     where outcome = 'abandoned'"""


def test_a_turn_that_broke_off_is_gone_on_from(at_work: AtWork):
    at_work.begin("write a.txt: a")
    head = at_work.head()
    prompt = "write b.txt: b\nrun: echo once | tee -a ran.txt\nrun: sleep 2\nwrite c.txt: c"
    asked = at_work.ask(Update(project=P, user=U, prompt=prompt))
    partial = killed_after(at_work, asked, "once")
    (at_work.place / "c.txt.tmp.2.2be9f2cb12ad").touch()  # as the CLI writes, before it renames
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("partial", "worker_died")]
    source, reason, old, new, parent = at_work.moves()[-1]
    assert (source, reason, old, parent) == ("recovery", "worker_died", head, partial)
    assert at_work.head() == new
    assert (text(at_work, "ran.txt"), text(at_work, "c.txt")) == ("once\n", "c")
    went_on = at_work.model.requests[-1].prompts
    assert went_on[:2] == ("write a.txt: a", prompt)
    assert went_on[-1].startswith("You were interrupted")
    assert went_on[-1].endswith(prompt)
    result: Any = at_work.job(asked).result
    assert sorted(result["files_created"]) == ["b.txt", "c.txt", "ran.txt"]
    assert at_work.tries(asked)[-1] == (partial, "resumed", "worker_died")
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_what_turns_cost_whose_worker_died_is_counted_once(at_work: AtWork):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(
        Update(project=P, user=U, prompt="run: echo once\nrun: sleep 2\nsay ok")
    )
    killed_after(at_work, asked, "once")
    assert at_work.run(asked).state == "done"
    jobs.cancel(at_work.conn, asked)
    at_work.chat("say next")
    asked = at_work.ask(ChatPlan(project=P, user=U, prompt="say end"))
    killed_at(at_work, asked, "turn.ended")
    assert at_work.run(asked).state == "done"
    at_work.chat("say more")
    used = [seen.usage for seen in at_work.model.requests if seen.usage]
    exact = [n for n, (one,) in enumerate(at_work.rows(ESTIMATED)) if not one]
    assert exact == [0, 2, 3, 4, 5]  # the figure of the one that had ended was in the store
    told = float(at_work.value("select sum(cost_usd) from turns"))
    assert told == pytest.approx(sum(map(price, used)), rel=0.1)
    assert violations(at_work.conn) == []


ESTIMATED = "select cost_estimated from turns order by id"


def price(used: dict[str, Any]) -> float:
    """What the CLI takes a request of its model for, in USD; it shows in the turns that it told of."""
    return 4e-6 * (
        used["input_tokens"]
        + 1.25 * used["cache_creation_input_tokens"]
        + 0.05 * used["cache_read_input_tokens"]
        + 5 * used["output_tokens"]
    )


def test_an_answer_that_was_given_is_not_asked_for_again(at_work: AtWork):
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Metadata(project=P, user=U))
    killed_at(at_work, asked, "turn.ended")
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("finished", "worker_died")]
    result: Any = at_work.job(asked).result
    assert result["recommendations"]["recommendations"]
    steps = [(turn["step"], turn["outcome"]) for turn in at_work.turns(asked)]
    assert steps == [("recommendations", "committed"), ("documentation", "committed")]


def test_a_turn_that_had_done_nothing_begins_again_from_the_head(at_work: AtWork):
    at_work.begin("write a.txt: a")
    head = at_work.head()
    asked = at_work.ask(ChatPlan(project=P, user=U, prompt="say what"))
    killed_at(at_work, asked, "turn.recorded")
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("lost", "not_found")]
    assert at_work.moves()[-1][0] == "chat_plan"
    assert at_work.moves()[-1][-1] == head


@pytest.mark.long
def test_what_was_left_on_another_host_is_given_up_with_its_session(at_work: AtWork):
    """Without its files, what the session says it did is not true."""
    (Path.cwd() / "remote").mkdir()
    at_work.configure(BATON_WORKSPACE_REMOTE=f"file://{Path.cwd()}/remote/{{project}}.git")
    at_work.begin("write a.txt: a")
    prompt = "write b.txt: b\nrun: echo once | tee -a ran.txt\nrun: sleep 1"
    asked = at_work.ask(Update(project=P, user=U, prompt=prompt))
    killed_after(at_work, asked, "once")
    at_work.configure(BATON_WORKSPACES=str(Path.cwd() / "elsewhere"))
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("lost", "workspace_elsewhere")]
    assert text(at_work, "ran.txt") == "once\n"


@pytest.mark.long
def test_after_a_rewind_the_dead_attempt_is_not_gone_on_from(at_work: AtWork):
    at_work.begin("write a.txt: a")
    first = at_work.head()
    at_work.build("write b.txt: b")
    asked = at_work.ask(Update(project=P, user=U, prompt="run: echo once\nrun: sleep 1"))
    killed_after(at_work, asked, "once")
    assert first
    projects.rewind(at_work.conn, P, first)
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("lost", "head_moved")]
    assert at_work.moves()[-1][-1] == first


def test_what_cannot_be_gone_on_from_is_put_aside_and_begun_again(at_work: AtWork):
    at_work.begin("write a.txt: a")
    head = at_work.head()
    prompt = "write b.txt: b\nrun: echo once | tee -a ran.txt\nrun: sleep 1"
    asked = at_work.ask(Update(project=P, user=U, prompt=prompt))
    killed_after(at_work, asked, "once")
    at_work.model.fault("400", times=-1, when="You were interrupted")
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("partial", "worker_died")]
    source, _, _, _, parent = at_work.moves()[-1]
    assert (source, parent) == ("update", head)
    assert text(at_work, "ran.txt") == "once\n"
    (told,) = at_work.events("workspace.kept_aside")
    assert told["ref"].startswith("refs/baton/lost/")


@pytest.mark.long
def test_a_first_build_that_broke_off_is_gone_on_from_too(at_work: AtWork):
    asked = at_work.ask(Build(project=P, user=U, prompt="run: echo once\nrun: sleep 1\nsay ok"))
    partial = killed_after(at_work, asked, "once")
    assert at_work.run(asked).state == "done"
    assert at_work.moves()[-1][0] == "recovery"
    assert at_work.moves()[-1][-1] == partial
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_finished_turn_of_a_drained_attempt_is_committed(at_work: AtWork):
    """The interruption came when the agent had just said its last word."""
    at_work.begin("write a.txt: a")
    asked = at_work.ask(ChatPlan(project=P, user=U, prompt="say end"))
    killed_at(at_work, asked, "turn.ended")
    at_work.conn.execute(
        """
        update turns set outcome = 'failed', error_class = 'drained'
         where outcome = 'abandoned'
        """
    )
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("finished", "drained")]
    assert violations(at_work.conn) == []


@pytest.mark.long
def test_a_damaged_head_under_a_dead_attempt_ends_in_a_fresh_session(at_work: AtWork):
    at_work.begin("write a.txt: a")
    head = at_work.head()
    asked = at_work.ask(
        Update(project=P, user=U, prompt="run: echo once\nrun: sleep 1\nsay ok")
    )
    killed_after(at_work, asked, "once")
    at_work.conn.execute(
        """
        delete from transcript_batches where id =
               (select min(id) from transcript_batches where session_id = %s)
        """,
        (head,),
    )
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("lost", "damaged")]
    assert at_work.moves()[-1][:2] == ("fallback", "damaged")


def test_a_turn_that_was_ended_and_will_not_do_is_not_found_again(at_work: AtWork):
    """Its answer is not of the form that was asked for: the model is asked anew."""
    at_work.begin("write a.txt: a")
    asked = at_work.ask(Metadata(project=P, user=U))
    killed_at(at_work, asked, "turn.ended")
    job = attempts.claim(
        at_work.conn,
        asked,
        attempt=uuid4(),
        runner=identity.runner("w"),
        limit=3,
        lease=timedelta(seconds=30),
    )
    assert job
    minted = at_work.turns(asked)[0]["minted_session_id"]
    turns.give_up(at_work.conn, job, minted=minted, error_class="not_whole")
    assert recovery.look(at_work.conn, job, turns.begun(at_work.conn, job)) is None
