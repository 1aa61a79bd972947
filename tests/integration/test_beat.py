"""A real beat: it asks for what is due at each start, its pulse is written down, and what it asks
for is bounded while nobody does it."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection

from dev.stack.procfile import read_procfile
from tests.conftest import Configure
from tests.ledger import one
from tests.waiting import wait_until
from worker.app import app
from worker.broker import periodic
from worker.live.checkpoints import BROKER, client


@pytest.fixture
def asked(dsn: str, redis_url: str, configure: Configure) -> None:
    configure(DATABASE_URL=dsn, REDIS_URL=redis_url)
    app.conf.update(broker_url=redis_url)


def waiting() -> int:
    """How many messages for clean-up wait."""
    found: Any = client(BROKER).llen(periodic.QUEUE)
    return found


@contextmanager
def beat(root: Path, dsn: str, redis_url: str) -> Generator["subprocess.Popen[bytes]"]:
    """The Procfile's beat."""
    env = {**os.environ, "DATABASE_URL": dsn, "REDIS_URL": redis_url}
    with (root / "beat.log").open("ab") as log:
        command = read_procfile(root)["beat"].split()
        running = subprocess.Popen(command, cwd=root, env=env, stdout=log, stderr=log)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_a_beat_that_never_lives_for_a_period_asks_for_what_is_due_all_the_same(
    asked: None, conn: Connection, dsn: str, redis_url: str, tmp_path: Path
):
    for due in (len(periodic.NAMES), 2 * len(periodic.NAMES)):
        with beat(tmp_path, dsn, redis_url) as running:
            wait_until(
                lambda due=due: waiting() == due,
                timeout=20,
                description="all that is due to be asked for",
            )
            wait_until(
                lambda pid=running.pid: one(
                    conn, "select count(*) from beats where pid = %s", pid
                ),
                description="its pulse to be written down",
            )
    assert one(conn, "select count(*) from beats") == 2


def test_what_nobody_does_is_bounded(asked: None):
    with app.connection_for_write() as broker:  # as beat has it
        producer: Any = app.amqp.Producer(broker)
        for _ in range(periodic.MOST + 7):
            app.send_task("tasks.upkeep.sweep", queue=periodic.QUEUE, producer=producer)
    assert waiting() == periodic.MOST
