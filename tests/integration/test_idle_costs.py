"""What nobody asked for costs next to nothing: a relay's look."""

import pytest
from psycopg import Connection

from db.core import connections, pool
from db.jobs import workers
from db.jobs.workers import Worker
from tests.conftest import Configure
from tests.counting import counting
from tests.faults.wire import wired
from tests.ledger import RUNNER, ask, begun
from worker import relay
from worker.live import checkpoints

WORKER = Worker(
    id="w1",
    host="host",
    pid=1,
    slots=1,
    box=None,
    cli_version="2",
    credential="c",
    worker_id=RUNNER.worker_id,
)


def test_a_look_asks_only_about_what_is_owed(
    conn: Connection,
    dsn: str,
    redis_url: str,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(connections, "SURELY", float("inf"))  # none is asked whether it lives
    workers.report(conn, WORKER)
    with wired(dsn) as wire:
        configure(DATABASE_URL=wire.url, REDIS_URL=redis_url)
        pool.close()
        checkpoints.client.cache_clear()
        relay.run_once()  # connects
        with counting(wire, redis_url) as idle:
            relay.run_once()

        begun(conn, project="q")
        ask(conn)
        assert relay.look_once() == relay.Looked(full=True)
        with counting(wire, redis_url) as full:
            assert relay.look_once() == relay.Looked(full=True)
        pool.close()
    assert (idle.statements, idle.redis_trips) == (1, 0), idle.asked
    assert (full.statements, full.redis_trips) == (2, 0), full.asked
