"""What nobody asked for costs next to nothing: a relay's look, and events that nobody hears."""

import pytest
import redis
from psycopg import Connection

from db.core import connections, pool
from db.jobs import workers
from db.jobs.workers import Worker
from tests.conftest import Configure
from tests.counting import counting
from tests.faults.wire import wired
from tests.ledger import RUNNER, ask, begun
from worker import relay
from worker.app import app
from worker.broker import connection
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


def test_events_go_out_only_while_somebody_hears_them(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (("TRY_AGAIN", 3600.0), ("_heard", 0), ("_tried_at", float("-inf"))):
        monkeypatch.setattr(connection, name, value)
    with (
        redis.Redis.from_url(redis_url) as client,
        app.connection_for_write(redis_url) as link,
        app.events.Dispatcher(link, hostname="w1") as dispatcher,
    ):
        before = _published(client)
        for _ in range(5):
            dispatcher.send("task-received", uuid="j")
        assert _published(client) - before == 1, "one tells whether somebody listens"

        with client.pubsub() as watcher:
            watcher.psubscribe("*celeryev*")
            assert watcher.get_message(timeout=60)
            monkeypatch.setattr(connection, "TRY_AGAIN", 0.0)
            for _ in range(5):
                dispatcher.send("task-started", uuid="j")
            assert all(watcher.get_message(timeout=60) is not None for _ in range(5))


def _published(client: redis.Redis) -> int:
    stats: object = client.info("commandstats")
    assert isinstance(stats, dict)
    return stats.get("cmdstat_publish", {}).get("calls", 0)
