"""Celery messages that are no request: refused, and found by their id; and what Flower shows of
those that are one. Of what a message holds, nothing is in a log."""

import base64
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery import Celery

from tests.acceptance.outside import Baton
from tests.waiting import wait_until
from worker.broker.consumer import AFTER

CANARY = "the-prompt-that-nobody-may-read"


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ({"name": "tasks.biuld"}, "unknown_task"),
        ({"content_type": "application/x-python-serialize"}, "unreadable"),
        ({"body": f'{{"prompt": "{CANARY}"'}, "unreadable"),
        ({"body": f'[[], "{CANARY}", {{}}]'}, "bad_input"),
        ({"headers": {"prompt": CANARY}}, "no_task"),
        ({"eta": CANARY}, "bad_input"),
        ({"body": f'[[], {{}}, "{CANARY}"]'}, "bad_input"),
        ({"body": '[[], {}, {"id": "another"}]'}, "bad_input"),
        ({"body": f'[[], {{"self": "{CANARY}"}}, {{}}]'}, "bad_input"),
        ({"name": "tasks.upkeep.sweep", "body": f'[[], {{"{CANARY}": 1}}, {{}}]'}, "bad_input"),
        ({"name": "celery.group"}, "unknown_task"),
        ({"name": "celery.map"}, "unknown_task"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_what_is_no_message_of_ours_is_found_by_its_id_and_its_body_by_nobody(
    baton: Baton, how: dict[str, Any], code: str
):
    task_id = str(uuid4())
    _push_anything(baton, task_id, **how)
    wait_until(lambda: baton.refused(task_id), description="it to be written down")
    written = baton.refused(task_id)
    assert written
    assert written["code"] == code
    assert CANARY not in str(written)
    wait_until(lambda: not baton.unread(), timeout=20, description="all messages to be read")
    assert CANARY not in baton.up.log("worker")
    assert "raised unexpected" not in baton.up.log("worker")


# What Celery's own control sends to all workers, as a task to be sent after ours.
SHUTDOWN: dict[str, Any] = {
    "task": "nobody's",
    "args": [],
    "kwargs": {},
    "options": {"exchange": "celery.pidbox", "exchange_type": "fanout", "routing_key": ""},
}


@pytest.mark.parametrize("where", ["the body", "the headers"])
@pytest.mark.parametrize("what", AFTER)
def test_a_message_that_has_a_worker_send_others_is_refused(
    baton: Baton, where: str, what: str
):
    """They would go out with the worker's own rights, which its sender does not have."""
    task_id, project = str(uuid4()), baton.project()
    more: dict[str, Any] = {what: SHUTDOWN if what == "chord" else [SHUTDOWN]}
    asked = {"project_id": project, "user_id": "ann", "prompt": "say done"}
    body: list[Any] = [[], asked, more if where == "the body" else {}]
    headers: dict[str, Any] = {"task": "tasks.chat_plan", "id": task_id}
    if where == "the headers":
        headers |= more
    _push_anything(baton, task_id, body=json.dumps(body), headers=headers)
    wait_until(lambda: baton.refused(task_id), description="it to be written down")
    written = baton.refused(task_id) or {}
    assert written["code"] == "bad_input"
    assert "ask for each by itself" in written["error"]
    assert baton.jobs(project) == []


def test_what_a_message_says_of_its_limits_is_not_its_senders_to_say(baton: Baton):
    """Celery would kill the pool's child, or never do so."""
    task_id, project = str(uuid4()), baton.project()
    asked = {"project_id": project, "user_id": "ann", "prompt": "sleep 2"}
    headers = {"task": "tasks.chat_plan", "id": task_id, "timelimit": [1, 1]}
    _push_anything(baton, task_id, body=json.dumps([[], asked, None]), headers=headers)
    wait_until(lambda: baton.jobs(project), description="the row")
    assert baton.over(UUID(task_id))["state"] == "done"


def test_a_prompt_is_in_nothing_that_flower_shows(baton: Baton):
    project = baton.project()
    prompt = f"sleep 3\nsay {CANARY}"
    sent = baton.send("tasks.chat_plan", project_id=project, user_id="ann", prompt=prompt)
    wait_until(lambda: baton.seen(project), timeout=30, description="the model to be asked")
    shown = baton.task_in(sent, "STARTED")
    ids = (project, sent)  # the relay may have woken it once more: then it is the job's
    assert any(each in shown["kwargs"] for each in ids), "what is no text of a user's is shown"
    assert CANARY not in str(shown)
    with Celery(broker=baton.up.redis_url, set_as_current=False) as app:
        active = app.control.inspect(timeout=3).active()
    assert sent in str(active)
    assert CANARY not in str(active)
    baton.ended(UUID(sent))
    baton.task_in(sent, "SUCCESS")
    for page in ("api/tasks", f"api/task/info/{sent}", f"task/{sent}", "api/workers?refresh=1"):
        assert CANARY not in baton.flower(page).text
    assert CANARY not in baton.up.log("worker")


def _push_anything(
    baton: Baton,
    task_id: str,
    *,
    name: str = "tasks.chat_plan",
    body: str = json.dumps([[], {"prompt": CANARY}, {}]),
    content_type: str = "application/json",
    encoding: str = "utf-8",
    headers: dict[str, Any] | None = None,
    eta: str | None = None,
) -> None:
    """Put something into the queue `celery` that is a message of a kind."""
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": encoding,
        "content-type": content_type,
        "headers": {"task": name, "id": task_id, "eta": eta} if headers is None else headers,
        "properties": {
            "correlation_id": task_id,
            "delivery_tag": task_id,
            "delivery_info": {"exchange": "", "routing_key": "celery"},
            "priority": 0,
            "body_encoding": "base64",
        },
    }
    with baton.redis(0) as client:
        client.lpush("celery", json.dumps(message))
