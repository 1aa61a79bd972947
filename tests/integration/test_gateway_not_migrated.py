"""A gateway newer than its database says at every door that `baton migrate` is needed, and goes on after it."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg

from db.core import migrate
from db.live import keys
from tests.calling import side
from tests.gateways import Gateway, gateway, tab, talk
from tests.gateways import at as at
from tests.gateways import url as url
from tests.voices import closed_with

SAID = "The database is older than this gateway: run `baton migrate`."
NEWEST = max(file.name for file in migrate.FILES.glob("*.sql"))
CONNECT = (
    "alter function baton_connect rename to later",
    "alter function later rename to baton_connect",
)
ENQUEUE = (
    "alter function baton_enqueue rename to later",
    "alter function later rename to baton_enqueue",
)
COLUMN = (
    "alter table calls rename column stream_sid to later",
    "alter table calls rename column later to stream_sid",
)
KEYS = ("alter table api_keys rename to later", "alter table later rename to api_keys")
NOTE = (
    f"update baton_migrations set name = 'of before' where name = '{NEWEST}'",
    f"update baton_migrations set name = '{NEWEST}' where name = 'of before'",
)


@contextmanager
def older(url: str, *changes: tuple[str, str]) -> Generator[None]:
    """The database as an older release has it, until the block ends."""
    with psycopg.connect(url, autocommit=True) as conn:
        for change, _ in changes:
            conn.execute(change.encode())
        yield
        for _, back in changes:
            conn.execute(back.encode())


def test_a_gateway_at_an_older_database_is_not_ready_until_it_is_migrated(
    url: str, redis_server: str, tmp_path: Path
):
    def ready(one: Gateway) -> httpx.Response:
        return httpx.get(f"{one.url}/readyz", trust_env=False)

    with gateway(url, redis_server, tmp_path / "log") as one:
        with older(url, NOTE):
            assert (ready(one).status_code, ready(one).json()) == (
                503,
                {"code": "not_migrated", "detail": SAID},
            )
        assert ready(one).status_code == 200
        with older(url, NOTE):
            assert ready(one).status_code == 200, (
                "a newer Baton was here: it serves this one too"
            )


def test_http_says_that_it_must_be_migrated(at: Gateway, url: str):
    with psycopg.connect(url, autocommit=True) as conn:
        key, _ = keys.create(conn, "acme", "tests", ["voice"])
    ask = {"kind": "build", "project": f"p-{uuid4().hex}", "user": "ann", "prompt": "go"}
    with older(url, COLUMN, ENQUEUE), at.http as client:
        call = client.post("/v1/calls", headers={"Authorization": f"Bearer {key}"})
        assert (call.status_code, call.json()["code"]) == (503, "not_migrated")
        assert call.json()["detail"] == SAID
        job = client.post("/v1/jobs", json=ask)
        assert (job.status_code, job.json()["code"]) == (503, "not_migrated")


def test_every_websocket_says_that_it_must_be_migrated_and_works_when_it_is(
    at: Gateway, url: str
):
    name = f"p-{uuid4().hex[:8]}"
    place = f"{at.url.replace('http', 'ws')}/v1/calls/x/frontend"

    async def story() -> None:
        with older(url, CONNECT, COLUMN):
            async with await tab(at, name) as one, side(place) as page:
                assert await one.closed() == (1013, SAID)
                assert await page.closed() == (1013, SAID)
        async with await tab(at, name) as one:
            await one.next("live")
            message = {"t": "msg", "id": str(uuid4()), "kind": "update", "text": "go"}
            with older(url, ENQUEUE):
                await one.say(**message)
                nack = await one.next("nack")
                assert (nack["code"], nack["text"], nack["retry"]) == (
                    "not_migrated",
                    SAID,
                    True,
                )
            await one.say(**message)
            assert not (await one.next("ack"))["dup"]
        with older(url, KEYS):
            assert await closed_with(at, "/v1/realtime?model=m", "bk_x") == (1013, SAID)

    talk(story)
