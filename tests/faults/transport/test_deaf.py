"""A worker that is connected and deaf: it answers, takes nothing, and is ended by its watchdog."""

from pathlib import Path

import pytest
from celery import Celery

from tests.acceptance.outside import baton_up
from tests.faults.conftest import Tally
from tests.faults.transport.cheap_worker import DEAF
from tests.faults.transport.struck import RELAY, WORKER, Struck
from tests.waiting import wait_until

DEAF_AFTER = 3.0  # seconds
AGAIN = 60.0  # seconds until a new worker has taken what waits, on a busy machine


@pytest.mark.long
def test_a_deaf_worker_is_replaced(tmp_path: Path, tally: Tally):
    tally.fault, tally.simulated = "a worker connected but deaf", "agent scripted"
    commands = {"worker": WORKER, "relay": RELAY}
    with baton_up(tmp_path, commands=commands, BATON_DEAF_AFTER=f"{DEAF_AFTER:g}") as baton:
        struck = Struck(baton)
        first = baton.up.pid("worker")
        (baton.root / DEAF).touch()
        wait_until(
            lambda: baton.up.log("worker").count("Canceling queue") == 2,
            description="the worker to be deaf",
        )
        with Celery(broker=baton.up.redis_url, set_as_current=False) as app:
            wait_until(
                lambda: app.control.ping(timeout=1), description="an answer as if all were well"
            )
        asked = struck.chats(5)
        struck.ended(asked, within=AGAIN)
        tally.ran()
        tally.recovered(
            struck.baton.row(
                "select extract(epoch from min(started_at - created_at))::float as s from jobs"
            )["s"]
        )
        assert baton.up.pid("worker") != first
        tally.check(struck.wrong(asked))
