"""Stopping work: cancel, revoke and interrupt; what is left of it, and what Flower shows."""

import subprocess
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from celery import Celery

from tests.acceptance.outside import Baton, files, is_sentence
from tests.waiting import wait_until
from worker.client import Build, ChatPlan

SLOTS = 2
HALF = "write half.txt: half\nrun: sleep 300\nwrite rest.txt: rest"


def test_a_cancelled_build_stops_with_all_it_started_and_nothing_follows(baton: Baton):
    project = baton.project()
    assert baton.chat(project, "say hello")["state"] == "done"
    head = baton.head(project)
    job = baton.ask(Build(project=project, user="ann", prompt=HALF))
    running = baton.at_work(job, "sleep")
    told = baton.cli("cancel", str(job))
    assert told.returncode == 0, told.stderr
    cancelled = baton.over(job)
    assert (cancelled["state"], cancelled["error_class"]) == ("cancelled", "cancelled")
    baton.gone(running)
    assert baton.agents(job) == []
    baton.task_in(str(job), "REVOKED")
    assert baton.head(project) == head
    assert [one["kind"] for one in baton.jobs(project)] == ["chat_plan", "build"]
    assert len(baton.events(project, "job.cancelled")) == 1
    again = baton.cli("cancel", str(job))
    assert again.returncode == 0, "it is as it was asked to be"


@pytest.mark.long
def test_a_newer_request_interrupts_and_is_told_of_what_it_stopped(baton: Baton):
    project, whole = baton.project(), "write whole.txt: whole"
    first = baton.ask(Build(project=project, user="ann", prompt=HALF))
    running = baton.at_work(first, "sleep")
    second = baton.ask(Build(project=project, user="ann", prompt=whole, busy="interrupt"))
    assert baton.ended(second)["state"] == "done"
    baton.gone(running)
    stopped = baton.job(first)
    assert (stopped["state"], stopped["error_class"]) == ("cancelled", "replaced_by_request")
    assert [one["kind"] for one in baton.jobs(project)] == [
        *("build", "build", "metadata", "compaction")
    ]
    history = baton.seen_of(project, whole).history
    assert all(f"| {line}" in history for line in HALF.splitlines())
    assert set(files(baton.workspace(project))) == {"whole.txt", "DOCUMENTATION.md"}
    (aside,) = baton.events(project, "workspace.kept_aside")
    assert "half.txt" in _kept(baton, project, aside["body"]["ref"])


def test_a_queued_job_is_cancelled_at_once_and_never_begins(baton: Baton):
    project = baton.project()
    later = datetime.now(UTC) + timedelta(hours=1)
    job = baton.ask(ChatPlan(project=project, user="ann", prompt="later", run_at=later))
    assert baton.cli_json("cancel", str(job))["state"] == "cancelled"
    cancelled = baton.job(job)
    assert (cancelled["state"], cancelled["started_at"]) == ("cancelled", None)
    assert baton.seen(project) == []
    wait_until(lambda: baton.events(project, "job.cancelled"), description="its end to be told")


def test_an_ended_job_cannot_be_cancelled(baton: Baton):
    done = baton.chat(baton.project(), "say done")
    refused = baton.cli("cancel", str(done["id"]))
    assert refused.returncode == 1
    assert is_sentence(refused.stderr)
    assert baton.job(done["id"])["state"] == "done"


@pytest.mark.parametrize("terminate", [True, False])
def test_a_revoke_of_a_running_task_cancels_its_job(baton: Baton, terminate: bool):
    project = baton.project()
    job = baton.ask(ChatPlan(project=project, user="ann", prompt="sleep 60\nsay slept"))
    wait_until(lambda: baton.seen(project), timeout=30, description="the model to be asked")
    running = baton.agents(job)
    assert running
    baton.revoke(str(job), terminate=terminate)
    assert baton.over(job)["state"] == "cancelled"
    baton.gone(running)
    assert baton.task_in(str(job), "REVOKED")["name"] == "tasks.chat_plan"


def test_a_revoke_of_a_queued_job_cancels_it(baton: Baton):
    project = baton.project()
    later = datetime.now(UTC) + timedelta(hours=1)
    job = baton.ask(ChatPlan(project=project, user="ann", prompt="later", run_at=later))
    baton.revoke(str(job))
    assert baton.over(job)["state"] == "cancelled"


def test_a_revoke_of_a_job_that_somebody_holds_stops_no_worker_and_is_not_lost(baton: Baton):
    later = datetime.now(UTC) + timedelta(hours=1)
    job = baton.ask(ChatPlan(project=baton.project(), user="ann", prompt="later", run_at=later))
    with psycopg.connect(baton.up.database_url) as producer:
        producer.execute("select from jobs where id = %s for update", (job,))
        baton.revoke(str(job))
        assert baton.chat(baton.project(), "say others go on")["state"] == "done"
        with Celery(broker=baton.up.redis_url, set_as_current=False) as app:
            assert app.control.ping(timeout=5, limit=1)
        assert baton.job(job)["state"] == "queued"
    assert baton.over(job)["state"] == "cancelled"


def test_a_plain_message_that_is_revoked_while_it_waits_never_runs(baton: Baton):
    ahead = [baton.project() for _ in range(SLOTS)]
    for project in ahead:
        baton.ask(ChatPlan(project=project, user="ann", prompt="sleep 2\nsay slept"))
    wait_until(
        lambda: all(map(baton.seen, ahead)), timeout=30, description="no slot to be free"
    )
    project = baton.project()
    ask = {"project_id": project, "user_id": "ann", "prompt": "say this was revoked"}
    waiting = baton.send("tasks.chat_plan", **ask)
    baton.revoke(waiting)
    wait_until(lambda: baton.jobs(project), timeout=30, description="its row")
    assert baton.over(UUID(waiting))["error_class"] == "cancelled"
    before = str(uuid4())
    baton.revoke(before)
    wait_until(lambda: baton.remembers(before), description="the revoke to be written down")
    baton.send("tasks.chat_plan", task_id=before, **ask)
    baton.task_in(before, "REVOKED")
    assert baton.over(UUID(before))["state"] == "cancelled"
    assert baton.seen(project) == [], "the model was not asked"
    wait_until(
        lambda: len(baton.events(project, "job.cancelled")) == 2,
        description="their ends to be told",
    )


def test_a_second_message_for_a_job_is_no_failure_and_one_line_in_the_log(baton: Baton):
    done = baton.chat(baton.project(), "say done")
    late = baton.send("tasks.chat_plan", task_id=f"{done['id']}.9", job_id=str(done["id"]))
    assert "nothing was left to do" in baton.task_in(late, "SUCCESS")["result"]
    assert baton.job(done["id"]) == done, "and it changed nothing"
    baton.model.fault("404", when="teapot 23", times=-1)
    failed = baton.chat(baton.project(), "teapot 23")
    again = baton.send("tasks.chat_plan", task_id=f"{failed['id']}.9", job_id=str(failed["id"]))
    baton.task_in(again, "SUCCESS")
    running = baton.ask(ChatPlan(project=baton.project(), user="ann", prompt="sleep 2"))
    baton.until(running, "running")
    beside = baton.send("tasks.chat_plan", task_id=f"{running}.9", job_id=str(running))
    baton.task_in(beside, "SUCCESS")
    baton.over(running)
    for task in (late, again, beside):
        told = [line for line in baton.up.log("worker").splitlines() if task in line]
        assert len(told) == 2, "received, and how it ended"
        assert not [line for line in told if "WARNING" in line or "ERROR" in line]


def test_clean_up_is_done_while_every_slot_runs_an_agent(baton: Baton):
    busy = {baton.project(): 0 for _ in range(SLOTS)}
    asked = [
        baton.ask(ChatPlan(project=project, user="ann", prompt="sleep 8\nsay slept"))
        for project in busy
    ]
    wait_until(lambda: all(map(baton.seen, busy)), timeout=30, description="no slot to be free")
    now = baton.row("select now() as at")["at"]
    wait_until(
        lambda: baton.rows(
            "select 1 from ticks where at > %s and ended_at is not null and name = 'sweep'", now
        ),
        description="clean-up to be done",
    )
    assert [baton.job(job)["state"] for job in asked] == ["running"] * SLOTS, "beside them"
    for job in asked:
        baton.cli("cancel", str(job))
    for job in asked:
        baton.over(job)


def _kept(baton: Baton, project: str, ref: str) -> str:
    """The files that lie under a ref of the project's repository."""
    (repository,) = (
        head.parent for head in (baton.root / "workspaces/.trees").glob(f"{project}*/HEAD")
    )
    return subprocess.check_output(
        ["git", "--git-dir", str(repository), "ls-tree", "-r", "--name-only", ref], text=True
    )
