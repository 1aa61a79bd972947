"""Processes that die in mid-turn: the job goes on by itself, once, and nothing is left over."""

import os
import signal

import pytest

from dev.stack.processes import alive, carrying, look
from tests.acceptance.outside import Baton
from tests.waiting import wait_until
from worker.client import Build, ChatPlan


@pytest.mark.long
def test_a_job_goes_on_when_its_pool_child_is_killed(baton: Baton):
    project = baton.project()
    prompt = "write a.txt: a\nrun: sleep 2\nwrite b.txt: b\nsay both are there"
    job = baton.ask(Build(project=project, user="ann", prompt=prompt))
    running = baton.at_work(job, "sleep")
    before = baton.job(job)
    child = look(before["pid"])
    assert child
    os.kill(before["pid"], signal.SIGKILL)
    done = baton.over(job)
    assert (done["state"], done["rescues"]) == ("done", 1)
    assert done["attempt"] != before["attempt"]
    assert not alive(child)
    baton.gone(running)
    baton.ended(job)
    place = baton.workspace(project)
    assert [(place / name).read_text() for name in ("a.txt", "b.txt")] == ["a", "b"]
    assert len(baton.events(project, "job.rescued")) == 1
    committed = baton.rows(
        "select 1 from turns where job_id = %s and outcome = 'committed'", job
    )
    assert len(committed) == 1
    moves = baton.moves(project)
    assert [move["job_id"] for move in moves].count(job) == 1
    assert baton.head(project) == moves[-1]["new_session_id"]
    for attempt in (before["attempt"], done["attempt"]):
        assert carrying("BATON_ATTEMPT", str(attempt)) == []


def test_a_job_is_tried_again_when_its_agent_is_killed(baton: Baton):
    project = baton.project()
    job = baton.ask(ChatPlan(project=project, user="ann", prompt="sleep 1.5\nsay survived"))
    wait_until(
        lambda: baton.seen(project) and baton.job(job)["agent_pid"],
        timeout=30,
        description="the agent to be at work, and its pid to be told",
    )
    running = baton.agents(job)
    os.kill(baton.job(job)["agent_pid"], signal.SIGKILL)
    done = baton.ended(job)
    assert (done["state"], done["attempts"]) == ("done", 2)
    assert done["result"]["text"] == "survived"
    (waits,) = baton.events(project, "job.waits")
    assert waits["body"]["error_class"] == "killed"
    baton.gone(running)
