"""Messages doubled, late, out of order and about nothing: each step is done once all the same."""

import json
import random
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
import pytest
from celery import Celery

from dev.stack.up import stack
from tests.faults.conftest import Tally
from tests.faults.transport.struck import RELAY, WORKER, Struck
from tests.invariants import violations
from tests.waiting import wait_until
from worker.broker.queues import PLAIN, QUEUE
from worker.client import ChatPlan, enqueue

pytestmark = [pytest.mark.long, pytest.mark.timeout(800)]

BATCH = 250  # messages sent at a time
SCRIPTED = "agent scripted"
KINDS = ("build", "metadata", "compaction", "chat_plan")


def test_delivered_again_and_again(struck: Struck, tally: Tally, seed: int, long: bool):
    tally.fault, tally.simulated = "duplicate, late and unknown deliveries", SCRIPTED
    drawn = random.Random(seed)
    asked = struck.builds(30 if long else 8, "pause 0.2")
    for _ in range(10_000 // BATCH if long else 2):
        known = struck.baton.rows(
            "select kind, id from jobs where chain_id = any(%s)", list(asked)
        )
        # under any task's name: what is done for a job is its row's to say
        wakes = [
            (drawn.choice((row["kind"], *KINDS)), row["id"])
            for row in drawn.choices(known, k=BATCH)
        ]
        unknown = [("build", uuid4()), ("chat_plan", "no id at all")]
        struck.wake([*unknown, *wakes])
        tally.ran(len(wakes))
        struck.idle()
    struck.ended(asked, within=120)
    tally.note = f"{tally.runs} deliveries, 0 doubled steps"
    tally.check(struck.wrong(asked))


def test_what_is_no_message_costs_no_worker(struck: Struck, tally: Tally):
    tally.fault = "what is no message in a queue"
    told = {"body": "W10=", "properties": {"delivery_tag": "t", "body_encoding": "base64"}}
    rubbish: list[Any] = [
        *("garbage", b"\xff\xfe", "", "null", "7", "[1, 2]", "{}", '{"properties": 1}'),
        json.dumps({**told, "body": "W10"}),  # the padding is wrong
        json.dumps({**told, "properties": {"delivery_tag": [], "body_encoding": "base64"}}),
        json.dumps(told),  # a message of nothing
        '{"__type__": "x", "__value__": 1}',
        "9" * 5000,
        "[" * 100_000,
        *(json.dumps(one) for one in misshapen()),
    ]
    with struck.baton.redis(0) as broker:
        for queue in (QUEUE, PLAIN):
            broker.lpush(queue, *rubbish)
    tally.ran(2 * len(rubbish))
    struck.idle()
    tally.recovered(struck.taken())


def misshapen() -> list[dict[str, Any]]:
    """Messages in order on the outside, and with something missing or wrong in them."""
    headers = {"task": "tasks.build", "id": "7", "lang": "py"}
    about = {"delivery_info": {"exchange": "", "routing_key": QUEUE}, "body_encoding": "base64"}
    sound = {"content-type": "application/json", "content-encoding": "utf-8"}
    return [
        {**sound, "body": body, "headers": told, "properties": {**about, "delivery_tag": tag}}
        for body in ("W10=", "bnVsbA==", "eyJhIjogMX0=", "")  # [], null, {"a": 1}, none
        for told in (headers, {"task": "tasks.build"}, {"id": "7"}, {**headers, "eta": "soon"})
        for tag in (str(uuid4()),)
    ]


def test_delivered_five_times_during_a_turn_and_after_it(struck: Struck, tally: Tally):
    tally.fault = "5 deliveries during a turn, 5 after it"
    running = struck.real_turn(seconds=2)
    struck.wake([("chat_plan", running)] * 5)
    struck.real_turn_done(running)
    before = struck.baton.job(running)
    struck.wake([("chat_plan", running)] * 5)
    struck.idle()
    tally.ran(10)
    assert struck.baton.job(running) == before
    tally.check(struck.wrong([running]))
    struck.real_turn_done(running)


def test_messages_of_a_lane_in_the_wrong_order(struck: Struck, tally: Tally, long: bool):
    tally.fault, tally.simulated = "messages of a lane from the last to the first", SCRIPTED
    projects = [struck.cheap() for _ in range(20 if long else 3)]
    asked = list[UUID]()
    with struck.baton.conn.transaction():
        for number in range(4):
            asked += [
                enqueue(
                    struck.baton.conn,
                    ChatPlan(project=p, user="ann", prompt=f"pause 0.{number}"),
                ).id
                for p in projects
            ]
    struck.wake([("chat_plan", job) for job in reversed(asked)])
    tally.ran(len(asked))
    struck.ended(asked)
    for project in projects:
        order = [row["id"] for row in struck.baton.jobs(project)]
        assert order == [job for job in asked if job in order], "as they were asked for"
    tally.check(struck.wrong(asked))


def test_a_plain_message_again(struck: Struck, tally: Tally, long: bool):
    tally.fault, tally.simulated = "a plain producer's message redelivered", SCRIPTED
    tasks = [str(uuid4()) for _ in range(30 if long else 3)]
    fields = {task: {"project_id": struck.cheap(), "user_id": "ann"} for task in tasks}
    for _ in range(5):
        for task in tasks:
            struck.baton.send(
                "tasks.chat_plan", task_id=task, prompt="pause 0.3", **fields[task]
            )
            tally.ran()
    struck.idle()
    asked = [UUID(task) for task in tasks]
    struck.ended(asked)
    for task in tasks:
        assert len(struck.baton.jobs(fields[task]["project_id"])) == 1
    tally.check(struck.wrong(asked))


def test_a_killed_workers_message_comes_back_much_later(struck: Struck, tally: Tally):
    """The time that a message stays with a silent worker is made to be over, not waited for."""
    tally.fault = "a killed worker's message redelivered"
    tally.simulated = "agent scripted, visibility time-out aged"
    struck.same_worker = False
    supervisor = struck.baton.up.supervisor
    (job,) = struck.chats(1, "pause 2")
    struck.baton.until(job, "running")
    supervisor.kill("worker")
    done = struck.baton.over(job)
    with struck.baton.redis(0) as client:
        assert client.hlen("unacked"), "the message is still with the dead worker"
        for tag, _ in cast(Any, client.zrange("unacked_index", 0, -1, withscores=True)):
            client.zadd("unacked_index", {tag: 1})
    supervisor.hold("worker")
    supervisor.resume("worker")  # a worker looks for such messages as it starts
    struck.idle()
    tally.ran()
    assert struck.baton.job(job) == done
    tally.check(struck.wrong([job]))


def test_a_plain_message_while_postgres_is_away(tmp_path: Path, tally: Tally):
    """A stack of its own, since every look at the shared one would fail."""
    tally.fault, tally.simulated = "a plain message while Postgres is gone", SCRIPTED
    env = {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",  # nobody asks it
        "BATON_WORKSPACES": str(tmp_path / "workspaces"),
        "BATON_AGENT_HOME": str(tmp_path / "agent"),
    }
    with stack(tmp_path, env, commands={"worker": WORKER, "relay": RELAY}) as up:
        postgres = up.services.embedded[0]
        postgres.stop()
        asked = {"project_id": "cheap-p", "user_id": "ann", "prompt": "go"}
        with Celery(broker=up.redis_url, set_as_current=False) as app:
            task = app.send_task("tasks.chat_plan", kwargs=asked)
        wait_until(
            lambda: "message.put_back" in up.log("worker"),
            timeout=60,
            description="the message to go back",
        )
        postgres.wanted = True
        wait_until(
            lambda: answers(up.database_url), timeout=30, description="Postgres to be back"
        )
        with psycopg.connect(up.database_url, autocommit=True) as conn:
            wait_until(
                lambda: conn.execute(
                    "select 1 from jobs where id = %s and state = 'done'", (task.id,)
                ).fetchone(),
                timeout=60,
                description="the request to be done",
            )
            tally.ran()
            tally.check(violations(conn, ended=True, stored=True))
            assert conn.execute("select count(*) from turns").fetchone() == (1,)


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True
