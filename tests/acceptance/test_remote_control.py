"""What workers take over the broker: what Flower shows of them, and revokes; nothing else."""

import json
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from celery import Celery

from tests.acceptance.outside import Baton, baton_up
from tests.waiting import wait_until
from worker.broker.remote_control import SHOWN
from worker.client import ChatPlan

HARMFUL = (
    *("shutdown", "pool_shrink", "pool_grow", "pool_restart", "autoscale", "cancel_consumer"),
    *("add_consumer", "rate_limit", "time_limit", "disable_events", "election", "hello"),
    *("revoke_by_stamped_headers", "memdump", "objgraph", "report", "query_task", "heartbeat"),
)
GIVEN = {"queue": "celery", "n": 1, "task_name": "tasks.build", "rate_limit": "1/h", "hard": 1}


def told(baton: Baton, command: str, **given: Any) -> list[Any]:
    """What the worker answers."""
    with Celery(broker=baton.up.redis_url, set_as_current=False) as app:
        answers: Any = app.control.broadcast(
            command, arguments=given, reply=True, limit=1, timeout=10
        )
    return [answer for one in answers for answer in one.values()]


def test_a_command_that_flower_does_not_need_does_nothing(baton: Baton):
    for command in HARMFUL:
        (answer,) = told(baton, command, **GIVEN)
        assert answer == {"error": f"Baton's workers do not take {command} over the broker."}
    assert baton.chat(baton.project(), "say done")["state"] == "done"


def test_what_flower_shows_is_answered_without_a_password(baton: Baton):
    for command in SHOWN:
        (answer,) = told(baton, command)
        assert "error" not in answer, command
        _without_secrets(baton, json.dumps(answer, default=str))
    for page in ("workers?refresh=1&json=1", "broker", "api/workers?refresh=1", "tasks"):
        _without_secrets(baton, baton.flower(page).text)


def _without_secrets(baton: Baton, text: str) -> None:
    for url in (baton.up.redis_url, baton.up.database_url, baton.up.services.plain_broker_url):
        password = url.rpartition("@")[0].rpartition(":")[2]
        assert password
        assert password not in text


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baton]:
    """A Baton whose workers take nothing over the broker."""
    with baton_up(tmp_path_factory.mktemp("deaf"), BATON_REMOTE_CONTROL="off") as baton:
        yield baton


@pytest.mark.long
def test_off_no_worker_answers_and_jobs_are_done_and_cancelled_all_the_same(deaf: Baton):
    with Celery(broker=deaf.up.redis_url, set_as_current=False) as app:
        assert cast(Any, app.control.ping(timeout=1)) == []
    assert deaf.chat(deaf.project(), "say done")["state"] == "done"
    running = deaf.ask(ChatPlan(project=deaf.project(), user="ann", prompt="sleep 60"))
    wait_until(lambda: deaf.job(running)["state"] == "running", description="it to run")
    url = httpx.URL(deaf.up.flower_url)
    httpx.post(url.join(f"/api/task/revoke/{running}?terminate=true"), trust_env=False)
    assert deaf.over(running)["state"] == "cancelled", "Flower writes it down itself"
