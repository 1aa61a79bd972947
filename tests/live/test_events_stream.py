"""`/events` read by the Durable Streams project's own client, in each of its modes; and its conformance
suite's read side, for whoever has it (docs/decisions/0036-others-suites.md):

    npm install @durable-streams/server-conformance-tests vitest
    STREAMS_SUITE=…/node_modules make faults TESTS=tests/live/test_events_stream.py
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import Connection

from db.core.events import Event, append
from db.jobs import outbox
from dev.stack.processes import free_port
from tests.conftest import Configure
from tests.gateways import Gateway, gateway
from tests.live.node import CHECKOUT, MODULES, needs_node, needs_stream_client, node
from tests.machine import LACKS
from tests.waiting import wait_until
from worker.broker import publish

SUITE = Path(os.environ.get("STREAMS_SUITE", "/nowhere"))
READS = (
    *(
        "Read Operations",
        "Long-Poll Operations",
        "Long-Poll Edge Cases",
        "SSE Mode",
        "JSON Mode",
    ),
    *("Offset Validation and Resumability", "Read-Your-Writes Consistency", "Caching and ETag"),
)
# Whether a page of elsewhere may ask is for BATON_WEB_ORIGINS to say.
CHOSEN = rf"^({'|'.join(READS)}) (?!.*CORS)"
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


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not SUITE.is_dir(), reason=f"{LACKS}the suite of Durable Streams")
def test_the_read_side_of_their_conformance_suite_holds(at: Gateway, dsn: str, tmp_path: Path):
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    (tmp_path / "node_modules").symlink_to(SUITE)
    (tmp_path / "suite.test.mjs").write_text(
        'import { runConformanceTests } from "@durable-streams/server-conformance-tests";\n'
        f'runConformanceTests({{ baseUrl: "{here}" }});\n'
    )
    words = ("-m", "tests.live.streams", dsn, at.url, at.key, str(port))
    with subprocess.Popen([sys.executable, *words]) as writer:
        try:
            wait_until(
                lambda: writer.poll() is not None or answers(here), description="streams"
            )
            vitest = SUITE / "vitest" / "vitest.mjs"
            how = ("-t", CHOSEN, "--reporter=json", "--outputFile=told.json")
            subprocess.run(
                ["node", vitest, "run", "suite.test.mjs", *how, "--testTimeout=60000"],
                cwd=tmp_path, capture_output=True, check=False, timeout=1000,
            )  # fmt: skip
        finally:
            writer.kill()
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["numFailedTests"] == 0, [
        one["fullName"]
        for file in told["testResults"]
        for one in file["assertionResults"]
        if one["status"] == "failed"
    ]
    assert told["numPassedTests"] == 84


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 404
    except httpx.HTTPError:
        return False
