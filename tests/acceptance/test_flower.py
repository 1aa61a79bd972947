"""Flower of a running Baton: closed to strangers, to other origins' pages, and to the agent."""

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.outside import Baton
from tests.waiting import wait_until
from worker.broker.flower import closed
from worker.client import Build, ChatPlan

READ = ("", "tasks", "workers", "broker", "api/workers", "api/tasks", "api/task/types", "api/task/info/x")  # fmt: skip
DO = (
    *("api/task/send-task/tasks.chat_plan", "api/task/async-apply/tasks.chat_plan"),
    *("api/task/apply/tasks.chat_plan", "api/task/revoke/x", "api/task/abort/x"),
    *("api/worker/shutdown/x", "api/worker/pool/grow/x", "api/task/timeout/tasks.build"),
)


def post(baton: Baton, path: str, project: str, *, key: bool, **headers: str) -> int:
    """What a POST is answered that any page may have a browser send: `text/plain`."""
    url = httpx.URL(baton.up.flower_url)
    asked = {"kwargs": {"project_id": project, "user_id": "ann", "prompt": "say I am in"}}
    return httpx.post(
        (url if key else url.copy_with(userinfo=b"")).join(f"/{path}"),
        content=json.dumps(asked),
        headers={"Content-Type": "text/plain", **headers},
        trust_env=False,
    ).status_code


def test_without_the_password_nothing_is_told_and_nothing_done(baton: Baton):
    project = baton.project()
    stranger = httpx.URL(baton.up.flower_url).copy_with(userinfo=b"")
    with httpx.Client(trust_env=False) as client:
        assert {client.get(stranger.join(f"/{page}")).status_code for page in READ} == {401}
    assert {post(baton, path, project, key=False) for path in DO} == {401}
    _nothing_came_of_it(baton, project)


def _nothing_came_of_it(baton: Baton, project: str) -> None:
    with baton.redis(0) as client:
        wait_until(lambda: not client.llen("celery"), description="all messages to be taken")
    assert baton.jobs(project) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    ],
    ids=lambda given: " ".join(given.values()),
)
def test_a_page_of_another_origin_does_nothing_with_the_password_that_a_browser_keeps(
    baton: Baton, headers: dict[str, str]
):
    project = baton.project()
    task = str(uuid4())
    do = (*DO, f"api/task/revoke/{task}")
    assert {post(baton, path, project, key=True, **headers) for path in do} == {403}
    _nothing_came_of_it(baton, project)
    assert not baton.remembers(task)


def test_who_has_the_password_may_act(baton: Baton):
    project = baton.project()
    assert post(baton, DO[0], project, key=True) == 200
    (job,) = [baton.over(one["id"]) for one in _there(baton, project)]
    assert job["state"] == "done"


def _there(baton: Baton, project: str) -> list[dict[str, Any]]:
    return wait_until(lambda: baton.jobs(project), timeout=20, description="the row") or []


def test_the_agent_of_a_project_is_a_stranger_too(baton: Baton):
    """With a box or without: it reaches the port, as any program of the host may, and no more."""
    project, victim = baton.project(), baton.project()
    stranger = httpx.URL(baton.up.flower_url).copy_with(userinfo=b"")
    asked = {"kwargs": {"project_id": victim, "user_id": "eve", "prompt": "say I am in"}}
    script = (
        "import json, urllib.error, urllib.request\n"
        f"for path in {(READ[4], DO[0], DO[3])!r}:\n"
        "    try:\n"
        f"        data = None if path == {READ[4]!r} else json.dumps({asked!r}).encode()\n"
        f"        told = urllib.request.urlopen({str(stranger)!r} + '/' + path, data).status\n"
        "    except urllib.error.HTTPError as exc:\n"
        "        told = exc.code\n"
        "    except OSError:\n"
        "        told = 'out of reach'\n"
        "    print(told)\n"
    )
    done = baton.chat(project, "say done")
    assert done["state"] == "done"
    (baton.workspace(project) / "try.py").write_text(script)
    job = baton.ask(
        Build(project=project, user="ann", prompt=f"run: {sys.executable} try.py > told.txt")
    )
    baton.over(job)
    told = (baton.workspace(project) / "told.txt").read_text().split("\n")[:3]
    assert set(told) <= {"401", "out of reach"}, told
    assert len(told) == 3
    assert baton.jobs(victim) == []


def test_doctor_knows_whether_it_is_closed(baton: Baton):
    url = httpx.URL(baton.up.flower_url)
    assert closed(str(url))[0] == "ok"
    state, told = closed(str(url.copy_with(password="wrong")))
    assert (state, "refuses the password" in told) == ("warn", True)
    assert "wrong" not in told


def test_what_waits_is_cancelled_with_a_button_of_flowers(baton: Baton):
    later = datetime.now(UTC) + timedelta(hours=1)
    job = baton.ask(ChatPlan(project=baton.project(), user="ann", prompt="x", run_at=later))
    assert post(baton, f"api/task/revoke/{job}", "", key=True) == 200
    assert baton.job(job)["state"] == "cancelled", "at once: Flower writes it down itself"
