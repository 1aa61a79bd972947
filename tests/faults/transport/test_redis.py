"""Redis wiped, restarted, away, slow and full: jobs are rows, and nothing of them is lost."""

import random
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from dev.stack.embedded import open_redis
from dev.stack.processes import LOOPBACK
from dev.stack.server import Server
from tests.acceptance.outside import LONG, baton_up
from tests.faults.conftest import Tally
from tests.faults.transport.far import far
from tests.faults.transport.struck import COMMANDS, Struck
from tests.machine import needs_redis_with_tls
from tests.redis_tls import redis_with_tls
from tests.tls import Signer, tls_before
from tests.waiting import wait_until
from worker.broker.queues import PLAIN

pytestmark = [pytest.mark.long, pytest.mark.timeout(480)]

AGAIN = 10.0  # seconds after Redis answers until jobs are taken, as promised
SCRIPTED = "agent scripted"


def test_wiped_with_chains_queued(struck: Struck, tally: Tally, seed: int, long: bool):
    chains = 100 if long else 12
    tally.fault, tally.simulated = f"Redis wiped with {chains} chains queued", SCRIPTED
    drawn = random.Random(seed)
    asked = struck.builds(chains)
    for share in sorted(drawn.uniform(0, 0.9) for _ in range(6 if long else 2)):
        struck.under_way(asked, share)
        struck.flush()
        tally.ran()
        tally.recovered(struck.taken())
    struck.ended(asked, within=180)
    tally.note = f"0 of {len(asked)} chains lost"
    tally.check(struck.wrong(asked))


def test_restarted_under_load(struck: Struck, tally: Tally, seed: int, long: bool):
    tally.fault, tally.simulated = "Redis restarted, with and without its data", SCRIPTED
    drawn = random.Random(seed)
    asked = struck.chats(60 if long else 20, "pause 0.3") + struck.builds(10 if long else 2)
    for number, keep_data in enumerate((True, False) * (3 if long else 1)):
        struck.under_way(asked, number / 12)
        struck.end(keep_data=keep_data)
        struck.stay(drawn.uniform(0, 3))
        struck.begin()
        tally.ran()
        tally.recovered(took := struck.taken())
        assert took <= AGAIN
    struck.ended(asked, within=180)
    tally.check(struck.wrong(asked))


def by_pause(struck: Struck) -> Callable[[], None]:
    struck.pause()
    return struck.go_on


def by_end(struck: Struck) -> Callable[[], None]:
    struck.end()
    return struck.begin


@pytest.mark.parametrize("away", [by_pause, by_end])
def test_away_for_a_while(
    struck: Struck, tally: Tally, long: bool, away: Callable[[Struck], Callable[[], None]]
):
    seconds = (60 if away is by_end else 20) if long else 4
    how = "paused" if away is by_pause else "gone"
    tally.fault = f"Redis {how} for {seconds} s"
    running = struck.real_turn(2)
    back, began = away(struck), time.monotonic()
    asked = struck.chats(20 if long else 5)
    listed = struck.baton.cli_json("jobs", "--limit", "100")
    assert {str(job) for job in asked} <= {one["id"] for one in listed}
    by_hand = struck.baton.cli_json(
        "enqueue", "chat-plan", "--project", struck.cheap(), "--user", "ann", "--prompt", "go"
    )
    struck.real_turn_done(running)
    assert struck.open(asked) == len(asked), "nobody hears of them"
    struck.stay(seconds - (time.monotonic() - began))
    back()
    tally.ran()
    tally.recovered(took := struck.taken())
    assert took <= AGAIN
    struck.ended([*asked, running, UUID(by_hand["id"])], within=60)
    tally.check(struck.wrong([*asked, running, UUID(by_hand["id"])]))


def test_slow(struck: Struck, tally: Tally, long: bool):
    tally.fault, tally.simulated = "Redis slow (CLIENT PAUSE)", SCRIPTED
    asked = struck.builds(15 if long else 5)
    for number in range(4 if long else 2):
        struck.under_way(asked, number / 20)
        with struck.baton.redis(0) as client:
            client.client_pause(2500 if number % 2 else 700)
        tally.ran()
        tally.recovered(struck.taken())
    struck.ended(asked, within=120)
    tally.check(struck.wrong(asked))


def test_far(tmp_path: Path, tally: Tally):
    """A stack of its own, whose every way to Redis leads through a slow proxy."""
    tally.fault, tally.simulated = "Redis far: each answer takes 40 ms", SCRIPTED
    with (
        open_redis(tmp_path) as server,
        far(_port(server), delay=0.02) as port,
        baton_up(
            tmp_path,
            commands=COMMANDS,
            REDIS_URL=_through(server, port),
            BATON_COMPACT="always",
        ) as baton,
    ):
        struck = Struck(baton)
        asked = struck.chats(5) + struck.builds(3)
        for _ in range(5):
            tally.ran()
            tally.recovered(struck.taken())
        struck.ended(asked, within=120)
        tally.check(struck.wrong(asked))


@contextmanager
def before_it(home: Path, signer: Signer) -> Generator[str]:
    with (
        open_redis(home) as server,
        tls_before(_port(server), signer.certificate(LOOPBACK)) as port,
    ):
        yield _through(server, port).replace("redis:", "rediss:")


@pytest.mark.parametrize(
    "tls", [before_it, pytest.param(redis_with_tls, marks=needs_redis_with_tls)]
)
def test_behind_tls(
    tmp_path: Path,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
    tls: Callable[[Path, Signer], AbstractContextManager[str]],
):
    """A stack of its own, whose every way to Redis leads through TLS; the system trusts who signs."""
    whose = "Redis' own TLS" if tls is redis_with_tls else "TLS before Redis"
    tally.fault, tally.simulated = f"none: {whose}", SCRIPTED
    signer = Signer.made(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(signer.ca))
    with (
        tls(tmp_path, signer) as url,
        baton_up(tmp_path, commands=COMMANDS, REDIS_URL=url, BATON_COMPACT="always") as baton,
    ):
        struck = Struck(baton)
        asked = struck.chats(5) + struck.builds(2)
        tally.ran()
        tally.recovered(struck.taken())
        struck.ended(asked, within=120)
        assert struck.doctor()["redis"][0] == "ok"
        tally.check(struck.wrong(asked))


def _through(server: Server, port: int) -> str:
    """The server's URL, but by that port."""
    return server.url.replace(f":{_port(server)}/", f":{port}/")


def _port(server: Server) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


def test_full(struck: Struck, tally: Tally, long: bool):
    """Messages are in the worker, in the queue, and not yet sent, when nothing can be written."""
    tally.fault = "Redis full (noeviction)"
    running = struck.real_turn(3)
    asked = struck.chats(6, "pause 0.6")
    plain = [
        UUID(
            struck.baton.send(
                "tasks.chat_plan", project_id=struck.cheap(), user_id="ann", prompt="go"
            )
        )
        for _ in range(20)
    ]
    asked += plain
    with struck.baton.redis(0) as client:
        wait_until(lambda: client.llen(PLAIN), timeout=LONG, description="messages to wait")
        client.config_set("maxmemory", 100_000)  # less than it holds: each write is refused
        try:
            asked += struck.chats(5)
            struck.real_turn_done(running)
            state, told = struck.doctor()["redis"]
            assert (state, "full" in told) == ("fail", True)
            struck.stay(8 if long else 0)
            assert struck.open(asked)
        finally:
            client.config_set("maxmemory", 0)
    tally.ran()
    tally.recovered(struck.taken())
    wait_until(
        lambda: (
            len(struck.baton.rows("select 1 from jobs where id = any(%s)", plain)) == len(plain)
        ),
        timeout=LONG,
        description="the plain requests to be accepted",
    )
    struck.ended([*asked, running], within=60)
    tally.check(struck.wrong([*asked, running]))
