"""What clients must not do to a gateway: each is told so, and nobody else notices."""

import asyncio
import contextlib
import secrets
import socket
import time
from collections.abc import AsyncGenerator
from functools import partial

import httpx
import psutil
import pytest
from itsdangerous import TimestampSigner
from psycopg import Connection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from db.core.events import Event, append
from tests.bare import bare, held, told
from tests.gateways import Gateway, Tab, opened, tab, talk
from tests.gateways import at as at
from tests.gateways import ledger as ledger
from tests.gateways import project as project
from tests.gateways import url as url
from tests.waiting import wait_until
from worker.live.tickets import Tickets

SECRET = "a secret of the tests, which is long enough"


@pytest.fixture(autouse=True)
def _a_new_minute(redis_url: str) -> None:
    """Hellos are counted in Redis, which `redis_url` has emptied."""


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("no JSON", 4400),
        ("[1]", 4400),
        (b"bytes", 4400),
        ("[" * 100_000, 4400),
        ("x" * 300_000, 1009),
        ("😀" * 100_000, 1009),  # of bytes, not of characters
    ],
)
def test_a_frame_that_is_none_closes_the_connection_and_no_other(
    at: Gateway, project: str, frame: str | bytes, code: int
):
    async def story() -> None:
        async with await tab(at, project) as other, await tab(at, project) as one:
            await other.next("live")
            await one.next("live")
            await one.ws.send(frame)
            assert (await one.closed())[0] == code
            await other.say(t="cancel", job="\ud800")  # half of a pair, which nothing can send
            assert (await other.next("nack"))["code"] == "unknown_job"

    talk(story)


def test_a_message_that_does_not_end_is_refused_and_not_collected(at: Gateway):
    async def pieces() -> AsyncGenerator[str]:
        for _ in range(
            53
        ):  # 530 kB: what is on the way behind the limit may turn the close into a reset
            yield "x" * 10_000
        await asyncio.Event().wait()

    async def story() -> None:
        address = at.url.replace("http", "ws") + "/v1/live"
        async with connect(address, proxy=None) as one:
            sending = asyncio.create_task(one.send(pieces()))
            with pytest.raises(ConnectionClosed) as closed:
                await one.recv()
            sending.cancel()
            await asyncio.wait([sending])
        assert closed.value.rcvd
        assert closed.value.rcvd.code == 1009

    talk(story)


def test_who_says_no_hello_is_closed_after_ten_seconds(at: Gateway):
    async def story() -> None:
        began = time.monotonic()
        async with await opened(at) as one:
            code, reason = await one.closed(within=60)
        assert (code, reason[-1:]) == (4400, ".")
        assert time.monotonic() - began > 9

    talk(story)


def six_minutes_ago(_: TimestampSigner) -> int:
    return int(time.time()) - 360


def test_a_ticket_counts_no_more_after_five_minutes_or_a_sign_out(
    at: Gateway, project: str, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as then:
        then.setattr(TimestampSigner, "get_timestamp", six_minutes_ago)
        old, _ = Tickets(SECRET).ticket(project, "ann")
    given_back = at.ticket(project)
    with httpx.Client(base_url=at.url, trust_env=False) as page:
        page.post("/v1/session", json={"ticket": given_back})
        cookie = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
        assert page.delete("/v1/session").status_code == 204

    async def story() -> None:
        for ticket, said in ((old, None), (given_back, None), (None, cookie)):
            async with await opened(at, cookie=said) as one:
                await one.say(t="hello", v=1, project=project, ticket=ticket, last=0)
                assert (await one.closed())[0] == 4401

    talk(story)


@pytest.mark.long  # it is looked at with the heartbeat, every 30 s
def test_a_connection_whose_ticket_is_given_back_is_closed(at: Gateway, project: str):
    async def story() -> None:
        ticket = at.ticket(project)
        async with await opened(at) as one:
            await one.say(t="hello", v=1, project=project, ticket=ticket, last=0)
            await one.next("live")
            async with httpx.AsyncClient(base_url=at.url, trust_env=False) as page:
                await page.post("/v1/session", json={"ticket": ticket})
                assert (await page.delete("/v1/session")).status_code == 204
            assert (await one.closed(within=60))[0] == 4401

    talk(story)


def test_the_twenty_first_hello_of_an_address_within_a_minute_comes_too_soon(
    at: Gateway, project: str
):
    async def story() -> None:
        for _ in range(20):
            async with await opened(at) as one:
                await one.say(t="no hello")
                assert (await one.closed())[0] == 4400
        async with await opened(at) as one:
            code, reason = await one.closed()
        assert (code, "retry_after=" in reason) == (4429, True)

    talk(story)


@pytest.mark.long  # it takes six seconds
def test_a_reader_that_is_too_slow_is_closed_and_reads_on_where_it_was(
    at: Gateway, project: str, ledger: Connection
):
    many = 40  # of 50 kB: more than a gateway, its kernel and the client's hold

    def is_over(conn: str) -> bool:
        query = "select 1 from live_connections where conn = %s and status = 'disconnected'"
        return bool(ledger.execute(query, (conn,)).fetchall())

    async def story() -> None:
        place = at.url.replace("http", "ws") + "/v1/live"
        # Without pings of its own: a client that does not read hears no answer to them either.
        async with connect(place, proxy=None, max_queue=1, ping_interval=None) as ws:
            slow = Tab(ws)
            await slow.say(t="hello", v=1, project=project, ticket=at.ticket(project), last=0)
            conn = (await slow.next("welcome"))["conn"]
            await slow.next("live")
            noise = [Event("noise", None, {"text": secrets.token_hex(25_000)})] * many
            await asyncio.to_thread(append, ledger, project, noise)
            over = partial(wait_until, lambda: is_over(conn), timeout=30, description="its end")
            await asyncio.to_thread(over)  # it is told for 30 s that it is closed
            code, _ = await slow.closed(within=60)
            assert code == 1013
            assert slow.seqs == list(range(1, len(slow.seqs) + 1))
            assert len(slow.seqs) < many
        async with await tab(at, project, last=slow.seqs[-1]) as again:
            await again.next("live", within=60)
            assert again.seqs == list(range(slow.seqs[-1] + 1, many + 3))

    talk(story)


def test_a_head_that_does_not_end_is_refused_and_not_collected(at: Gateway):
    memory, kept = psutil.Process(at.process.pid).memory_info, list[int]()
    for begun in (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: ",
        b"GET /" + b"x" * 100,
        b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Long: ",
    ):
        before = memory().rss
        with socket.create_connection(("127.0.0.1", int(at.url.rpartition(":")[2]))) as one:
            one.sendall(begun)
            with contextlib.suppress(ConnectionError):
                for _ in range(40):
                    one.sendall(b"x" * 1_000_000)
            kept.append(memory().rss - before)
    assert max(kept) < 10_000_000, kept


@pytest.mark.long  # it is given 5 s to read a frame, and 42 to hear that it is closed
def test_a_client_that_reads_nothing_loses_its_socket(
    at: Gateway, project: str, ledger: Connection
):
    for _ in range(20):
        append(
            ledger, project, [Event("noise", None, {"text": secrets.token_hex(25_000)})] * 20
        )
    with bare(at.url.replace("http", "ws") + "/v1/live") as one:
        told(one, t="hello", v=1, project=project, ticket=at.ticket(project), last=0)
        assert held(at, [one])
        wait_until(lambda: not held(at, [one]), timeout=30, description="it to be cut")


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"kind": "\xff"}', b"\x00"])
def test_a_body_that_cannot_be_read_is_refused_as_one_that_is_no_json(at: Gateway, body: bytes):
    with at.http as client:
        answer = client.post(
            "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
        )
    assert (answer.status_code, answer.json()) == (
        422,
        {"code": "bad_input", "detail": "The body is not JSON."},
    )


@pytest.mark.parametrize(
    "origin", ["http://[", "null", "", "http://x:99999", "//", "http://evil.example"]
)
def test_what_is_no_origin_is_a_page_that_may_not(at: Gateway, project: str, origin: str):
    with httpx.Client(base_url=at.url, trust_env=False, headers={"Origin": origin}) as page:
        for answer in (
            page.post("/v1/session", json={"ticket": at.ticket(project)}),
            page.delete("/v1/session"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "bad_origin")

    async def story() -> None:
        async with await opened(at, origin=origin) as one:
            assert (await one.closed())[0] == 4401

    talk(story)
