"""A plain message whose worker died before its row was there comes back in a minute."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.running import AtWork, P, U
from worker import strays
from worker.app import app
from worker.checkpoints import BROKER, client
from worker.client import ChatPlan
from worker.publish import PLAIN, QUEUE


def taken(task_id: UUID, queue: str, *, ago: float) -> None:
    """A message of that queue is with a worker, which took it `ago` seconds ago and is dead."""
    broker: Any = client(BROKER)
    app.send_task(
        "tasks.chat_plan",
        kwargs={"project_id": P, "user_id": U, "prompt": "hello"},
        task_id=str(task_id),
        queue=queue,
    )
    (message,) = broker.lrange(queue, 0, -1)
    broker.delete(queue)
    broker.hset("unacked", str(task_id), json.dumps([json.loads(message), "", queue]))
    broker.zadd("unacked_index", {str(task_id): broker.time()[0] - ago})


def waiting(queue: str) -> list[str]:
    broker: Any = client(BROKER)
    messages = [json.loads(text) for text in broker.lrange(queue, 0, -1)]
    return [message["headers"]["id"] for message in messages]


def test_a_message_that_was_lost_with_its_worker_is_put_back_once(at_work: AtWork):
    task_id = uuid4()
    taken(task_id, PLAIN, ago=strays.LATE + 5)
    assert strays.put_back() == 1
    assert waiting(PLAIN) == [str(task_id)]
    assert strays.put_back() == 0


@pytest.mark.parametrize(
    ("queue", "ago"),
    [
        pytest.param(PLAIN, strays.LATE - 30, id="its worker may be at it"),
        pytest.param(QUEUE, strays.LATE + 5, id="ours only wake, and are sent again"),
    ],
)
def test_a_message_is_left_where_it_is(at_work: AtWork, queue: str, ago: float):
    taken(uuid4(), queue, ago=ago)
    assert strays.put_back() == 0
    assert waiting(queue) == []


def test_a_message_whose_row_is_there_is_with_a_worker_that_runs_it(at_work: AtWork):
    job = at_work.ask(ChatPlan(project=P, user=U, prompt="hello"))
    taken(job, PLAIN, ago=strays.LATE + 5)
    assert strays.put_back() == 0
    assert waiting(PLAIN) == []
