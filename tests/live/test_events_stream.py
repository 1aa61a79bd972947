"""`/events` read by the Durable Streams project's own client, in each of its modes."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import Connection

from db.core.events import Event, append
from db.jobs import outbox
from tests.conftest import Configure
from tests.gateways import Gateway, gateway
from tests.live.node import CHECKOUT, MODULES, needs_node, needs_stream_client, node
from worker.broker import publish

SCRIPT = Path(__file__).with_name("stream.mjs")
pytestmark = [needs_node, needs_stream_client]


@pytest.fixture
def at(dsn: str, redis_url: str, tmp_path: Path, configure: Configure) -> Iterator[Gateway]:
    configure(REDIS_URL=redis_url)
    with gateway(dsn, redis_url, tmp_path / "log") as one:
        one.ask("shop")
        with psycopg.connect(dsn, autocommit=True) as conn:
            outbox.look(conn)
        yield one


def tell(conn: Connection, many: int) -> None:
    """So many events in one commit, copied to Redis as a worker does it: it rings."""
    publish.copy("shop", append(conn, "shop", [Event("noise", None, {"text": "é\n\n"})] * many))


def test_all_there_is_is_read_and_from_an_offset_what_came_after_it(
    at: Gateway, conn: Connection
):
    tell(conn, 1200)  # three pages
    url = f"{at.url}/v1/projects/shop/events"
    first = node(SCRIPT, url, at.key, "catch-up", "-1", "0")
    assert first.returncode == 0, first.stderr
    *seqs, offset = first.stdout.split()
    assert [int(seq) for seq in seqs] == list(range(1, 1203))
    tell(conn, 3)
    second = node(SCRIPT, url, at.key, "catch-up", offset, "0")
    assert second.stdout.split()[:-1] == ["1203", "1204", "1205"]


@pytest.mark.parametrize("mode", ["long-poll", "sse"])
def test_what_comes_is_told_as_it_comes_each_once_and_in_order(
    at: Gateway, conn: Connection, mode: str
):
    url = f"{at.url}/v1/projects/shop/events"
    with subprocess.Popen(
        ["node", SCRIPT, url, at.key, mode, "-1", "12"],
        cwd=CHECKOUT,
        env={"BATON_NODE_MODULES": str(MODULES), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    ) as reader:
        assert reader.stdout
        seen = [reader.stdout.readline(), reader.stdout.readline()]
        for _ in range(10):
            tell(conn, 1)
            seen.append(reader.stdout.readline())
        assert reader.wait(60) == 0
    assert [int(line) for line in seen] == list(range(1, 13))
