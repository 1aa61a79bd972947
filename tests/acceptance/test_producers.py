"""How work is asked for: plain Celery messages, SQL, keys; and that each is done once."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.acceptance.outside import Baton, is_sentence
from tests.waiting import wait_until
from worker.client import Build, Busy, ChatPlan, Refused


@pytest.mark.long  # tests/integration/test_messages.py
def test_a_plain_message_that_is_delivered_three_times_runs_once(baton: Baton):
    project, task = baton.project(), str(uuid4())
    ask: dict[str, Any] = {
        "project_id": project,
        "user_id": "ann",
        "prompt": "write a.txt: one",
    }
    for _ in range(3):
        baton.send("tasks.build", task_id=task, **ask)
    baton.task_in(task, "STARTED", "SUCCESS")
    (job,) = wait_until(lambda: baton.jobs(project), description="the job's row")
    assert str(job["id"]) == task
    assert baton.ended(job["id"])["state"] == "done"
    baton.send("tasks.build", task_id=task, **ask)  # once more, after its end
    _all_read(baton)
    assert [one["kind"] for one in baton.jobs(project)] == ["build", "metadata", "compaction"]
    assert baton.turns(project, "write a.txt: one") == 1
    assert (baton.workspace(project) / "a.txt").read_text() == "one"
    assert len(baton.events(project, "job.done")) == 3


def test_a_message_made_by_hand_runs_as_any_other(baton: Baton):
    """What a producer in another language pushes: Celery's protocol 2, by LPUSH."""
    project = baton.project()
    _push(
        baton,
        "tasks.chat_plan",
        "order 4711/b",
        {"project_id": project, "user_id": "auth0|ann", "prompt": "say hello from Go"},
    )
    (job,) = wait_until(lambda: baton.jobs(project), timeout=15, description="the job's row")
    done = baton.ended(job["id"])
    assert (done["state"], done["result"]["text"]) == ("done", "hello from Go")
    assert done["user_id"] == "auth0|ann"
    _push(
        baton,
        "tasks.chat_plan",
        "order 4711/b",
        {"project_id": project, "user_id": "auth0|ann", "prompt": "say hello from Go"},
    )
    _all_read(baton)
    assert len(baton.jobs(project)) == 1


@pytest.mark.parametrize(
    ("name", "wrong", "sentence"),
    [
        ("tasks.build", {"user_id": None}, "user"),
        ("tasks.build", {"prompt": "  "}, "The prompt is empty"),
        ("tasks.build", {"project_id": "../up"}, "The project id must be"),
        ("tasks.build", {"prompt": ["not", "text"]}, "prompt"),
        ("tasks.build", {"previous_session_id": "it"}, "not a UUID"),
        ("tasks.metadata", {"prompt": None}, "is unknown"),
        ("tasks.build", {"job_id": "it"}, "not a UUID"),
        ("tasks.build", {"colour": "blue"}, "colour"),
    ],
)
def test_a_plain_message_that_makes_no_sense_fails_with_a_sentence(
    baton: Baton, name: str, wrong: dict[str, Any], sentence: str
):
    project = baton.project()
    ask = {"project_id": project, "user_id": "ann", "prompt": "hello"} | wrong
    ask = {field: value for field, value in ask.items() if value is not None}
    sent = baton.send(name, **ask)
    shown = baton.task_in(sent, "FAILURE")
    assert sentence in shown["exception"]
    assert baton.jobs(project) == []
    assert baton.rows("select 1 from projects where project_id = %s", project) == []
    written = baton.refused(sent)
    assert written
    assert (written["task"], sentence in written["error"]) == (name, True)
    asked = baton.cli("jobs", sent)
    assert (asked.returncode, sentence in asked.stderr) == (1, True)
    assert is_sentence(asked.stderr), asked.stderr


def test_sql_in_a_transaction_that_is_rolled_back_leaves_nothing(baton: Baton):
    project = baton.project()
    ask = "select baton_enqueue('chat_plan', %s, 'ann', 'say it is done', key => 'k')"
    with psycopg.connect(baton.up.database_url) as conn:
        conn.execute(ask, (project,))
        conn.rollback()
        assert baton.jobs(project) == []
        assert baton.rows("select 1 from projects where project_id = %s", project) == []
        row = conn.execute(ask, (project,)).fetchone()
        assert row
        assert baton.jobs(project) == [], "not before the commit"
        conn.commit()
    assert baton.ended(row[0])["result"]["text"] == "it is done"
    assert baton.turns(project, "say it is done") == 1


def test_the_same_key_is_the_same_job_and_another_body_is_refused(baton: Baton):
    project = baton.project()
    ask = ChatPlan(project=project, user="ann", prompt="say once", key="order-17")
    first = baton.ask(ask)
    assert baton.ask(ask) == first
    assert baton.ended(first)["state"] == "done"
    assert baton.ask(ask) == first, "also when it has ended"
    with pytest.raises(Refused, match="key") as caught:
        baton.ask(ChatPlan(project=project, user="ann", prompt="say twice", key="order-17"))
    assert is_sentence(str(caught.value))
    assert len(baton.jobs(project)) == 1
    command = ("enqueue", "chat-plan", "--project", project, "--user", "ann")
    told = baton.cli_json(*command, "--prompt", "say once", "--key", "order-17")
    assert told["id"] == str(first)


def test_two_projects_run_at_the_same_time_and_one_project_never_does(baton: Baton):
    one, two = baton.project("one"), baton.project("two")
    prompt = "sleep 0.7\nsay slept"
    asked = [
        baton.ask(ChatPlan(project=project, user="ann", prompt=prompt))
        for project in (one, two, one)
    ]
    for job in asked:
        assert baton.ended(job)["state"] == "done"
    ran = [(job["claimed_at"], job["finished_at"]) for job in map(baton.job, asked)]
    assert ran[0][0] < ran[1][1], "one began before two had ended"
    assert ran[1][0] < ran[0][1], "and two before one had"
    assert ran[2][0] >= ran[0][1], "one's second only after its first"


def test_what_is_not_due_waits_for_its_time(baton: Baton):
    project = baton.project()
    soon = datetime.now(UTC) + timedelta(seconds=1.5)
    done = baton.chat(project, "say now", run_at=soon)
    assert done["started_at"] >= soon


def test_the_command_line_asks_waits_and_shows(baton: Baton):
    project = baton.project()
    command = ("enqueue", "chat-plan", "--project", project, "--user", "ann")
    asked = baton.cli(*command, "--prompt", "say by hand", "--wait")
    assert asked.returncode == 0, asked.stderr
    (job,) = baton.jobs(project)
    shown = baton.cli_json("jobs", str(job["id"]))
    assert shown["state"] == "done"
    assert [step["outcome"] for step in shown["steps"]] == ["committed"]
    assert shown["steps"][0]["observed_session_id"] == baton.head(project)
    moves = baton.cli_json("chain", project)["moves"]
    assert [one["new_session_id"] for one in moves] == [baton.head(project)]


def test_waiting_at_the_command_line_for_what_fails_ends_with_one(baton: Baton):
    baton.model.fault("404", when="teapot 8", times=-1)
    command = ("enqueue", "chat-plan", "--project", baton.project(), "--user", "ann")
    asked = baton.cli(*command, "--prompt", "teapot 8", "--wait")
    assert asked.returncode == 1
    assert "choose another model" in asked.stderr
    assert is_sentence(asked.stderr)


@pytest.mark.parametrize(
    ("kind", "project", "prompt"),
    [("update", "nobody", "x"), ("build", "so", ""), ("metadata", "no", None)],
)
def test_what_cannot_be_asked_is_refused_in_one_sentence(
    baton: Baton, kind: str, project: str, prompt: str | None
):
    project = baton.project(project)
    prompted = [] if prompt is None else ["--prompt", prompt]
    refused = baton.cli("enqueue", kind, "--project", project, "--user", "ann", *prompted)
    assert refused.returncode == 1
    assert is_sentence(refused.stderr), refused.stderr
    assert baton.jobs(project) == []


@pytest.mark.long  # tests/integration/test_enqueue.py
def test_a_busy_project_can_refuse_more(baton: Baton):
    project = baton.project()
    later = datetime.now(UTC) + timedelta(hours=1)
    ahead = baton.ask(ChatPlan(project=project, user="ann", prompt="later", run_at=later))
    runs = baton.ask(ChatPlan(project=project, user="ann", prompt="sleep 2", busy="reject"))
    wait_until(lambda: baton.job(runs)["started_at"], description="it to begin")
    waits = baton.ask(ChatPlan(project=project, user="ann", prompt="say next"))
    with pytest.raises(Busy, match="The project is busy"):
        baton.ask(Build(project=project, user="ann", prompt="now", busy="reject"))
    done = baton.chat(project, "say instead", busy="replace")
    assert (done["state"], baton.job(runs)["state"]) == ("done", "done")
    assert baton.job(ahead)["state"] == "queued", "a date ahead holds no place"
    replaced = baton.job(waits)
    assert (replaced["state"], replaced["started_at"]) == ("cancelled", None)
    wait_until(
        lambda: [one["job_id"] for one in baton.events(project, "job.cancelled")] == [waits],
        description="the end of the one that was replaced to be told",
    )


def _push(baton: Baton, name: str, task_id: str, kwargs: dict[str, Any]) -> None:
    """Put a message into the queue `celery` with no library of Celery's."""
    body = json.dumps([[], kwargs, {"callbacks": None, "errbacks": None, "chain": None}])
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "go",
            "task": name,
            "id": task_id,
            "root_id": task_id,
            "parent_id": None,
            "group": None,
        },
        "properties": {
            "correlation_id": task_id,
            "delivery_mode": 2,
            "delivery_tag": str(uuid4()),
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
        },
    }
    with baton.redis(0) as client:
        client.lpush("celery", json.dumps(message))


def _all_read(baton: Baton) -> None:
    wait_until(
        lambda: not baton.unread(),
        timeout=20,
        description="the workers to have read all messages",
    )
