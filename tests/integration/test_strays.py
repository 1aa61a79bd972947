"""A plain message whose worker died before its row was there comes back within two minutes."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.running import AtWork, P, U
from worker.app import app
from worker.broker.lost_messages import Strays
from worker.broker.queues import PLAIN, QUEUE
from worker.client import ChatPlan
from worker.live.checkpoints import BROKER, client

pytestmark = pytest.mark.agent("direct")


def taken(task_id: UUID, queue: str, *, countdown: float | None = None) -> None:
    """A message of that queue is with a worker."""
    broker: Any = client(BROKER)
    app.send_task(
        "tasks.chat_plan",
        kwargs={"project_id": P, "user_id": U, "prompt": "hello"},
        task_id=str(task_id),
        queue=queue,
        countdown=countdown,
    )
    (message,) = broker.lrange(queue, 0, -1)
    broker.delete(queue)
    broker.hset("unacked", str(task_id), json.dumps([json.loads(message), "", queue]))
    broker.zadd("unacked_index", {str(task_id): broker.time()[0]})


def waiting(queue: str) -> list[str]:
    broker: Any = client(BROKER)
    messages = [json.loads(text) for text in broker.lrange(queue, 0, -1)]
    return [message["headers"]["id"] for message in messages]


def test_a_message_that_was_lost_with_its_worker_is_put_back_once(at_work: AtWork):
    task_id, strays = uuid4(), Strays(late=0)
    taken(task_id, PLAIN)
    assert [strays.put_back() for _ in range(3)] == [0, 1, 0]
    assert waiting(PLAIN) == [str(task_id)]


@pytest.mark.parametrize(
    ("queue", "strays"),
    [
        pytest.param(PLAIN, Strays(), id="its worker may be at it"),
        pytest.param(QUEUE, Strays(late=0), id="ours only wake, and are sent again"),
    ],
)
def test_a_message_is_left_where_it_is(at_work: AtWork, queue: str, strays: Strays):
    taken(uuid4(), queue)
    assert [strays.put_back() for _ in range(3)] == [0, 0, 0]
    assert waiting(queue) == []


def test_a_message_that_is_to_wait_at_its_worker_is_left_there(at_work: AtWork):
    strays = Strays(late=0)
    taken(uuid4(), PLAIN, countdown=3600)
    client(BROKER).hset("unacked", "what is no message", "{")
    assert [strays.put_back() for _ in range(3)] == [0, 0, 0]
    assert waiting(PLAIN) == []


def test_a_message_whose_row_is_there_is_with_a_worker_that_runs_it(at_work: AtWork):
    job, strays = at_work.ask(ChatPlan(project=P, user=U, prompt="hello")), Strays(late=0)
    taken(job, PLAIN)
    assert [strays.put_back() for _ in range(3)] == [0, 0, 0]
    assert waiting(PLAIN) == []
