"""What the sides of a practice call, and those who make calls, must not do: each is told so, and nothing of
it lasts."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from dev.standin.realtime.server import Provider
from tests.bare import bare, held, told
from tests.calling import CONFIG, Event, http, make, post, side
from tests.gateways import Gateway, gateway, talk
from tests.voices import at as at
from tests.voices import environment, key_of, new_name
from tests.voices import key as key
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url
from tests.waiting import wait_until

WAITS = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


def test_sides_that_do_not_answer_are_gone_two_seconds_after_the_end(
    at: Gateway, key: str, there: Provider
):
    call = make(at, key, CONFIG)
    with bare(call["frontend_url"]) as page, bare(call["media_url"]) as phone:
        told(phone, event="start", start={"streamSid": "MZ1"})
        with http(at, key) as client:
            wait_until(lambda: client.get(f"/v1/calls/{call['call']}").json()["status"] == "active",
                       description="the call to be active")  # fmt: skip
        assert held(at, [page, phone]) == 2
        post(at, key, f"/v1/calls/{call['call']}/end")
        ended = time.monotonic()
        wait_until(lambda: not held(at, [page, phone]), description="both to be closed")
        assert time.monotonic() < ended + 4, (
            "two seconds, and two for a machine that has much to do"
        )
        assert not there.open_links


def test_calls_that_are_made_at_once_are_no_more_than_may_be_open(
    url: str, redis_server: str, running: Provider, tmp_path: Path
):
    account = new_name("hasty")
    key = key_of(url, account)
    env = environment(running) | {"BATON_CALLS_OPEN": "1"}
    with (
        gateway(url, redis_server, tmp_path / "log", **env) as one,
        psycopg.connect(url) as conn,
        psycopg.connect(url, autocommit=True) as looks,
        ThreadPoolExecutor(3) as hands,
    ):
        # Whoever refers to the account waits: one who has counted already, and one who is about to.
        conn.execute("select from accounts where id = %s for update", (account,))
        asked = [hands.submit(post, one, key, "/v1/calls", config=CONFIG) for _ in range(3)]

        def waits() -> bool:
            row = looks.execute(WAITS).fetchone()
            return bool(row and row[0])

        wait_until(waits, description="one of them to come to the lock")
        time.sleep(0.5)  # for the others, which must not come there
        conn.commit()
        assert sorted(each.result().status_code for each in asked) == [201, 429, 429]


@pytest.mark.parametrize("name", ["frontend_url", "media_url"])
def test_a_frame_larger_than_256_kb_closes_the_side_and_not_the_call(
    at: Gateway, key: str, name: str
):
    call = make(at, key)

    async def story() -> None:
        async with side(call[name]) as one:
            await one.say(type="job.config", event="connected", text="x" * 300_000)
            assert (await one.closed())[0] == 1009

    talk(story)
    with http(at, key) as client:
        assert client.get(f"/v1/calls/{call['call']}").json()["status"] == "waiting"


def test_a_page_that_says_too_much_is_told_so_and_its_call_goes_on(at: Gateway, key: str):
    call = make(at, key)

    async def story() -> None:
        async with side(call["frontend_url"]) as page:
            for version in range(1, 32):
                await page.say(type="job.config", version=version, config={})
            error = (await page.until("type", "error"))["error"]
            assert (error["code"], error["message"][-1]) == ("too_many_messages", ".")
            assert 0 < error["retry_after"] <= 10

    talk(story)
    with http(at, key) as client:
        assert client.get(f"/v1/calls/{call['call']}").json()["config_version"] == 30


@pytest.mark.parametrize("config", [{"type": "transcription"}, {"type": None}, {"audio": 7}])
def test_a_configuration_with_which_no_call_can_speak_is_refused(
    at: Gateway, key: str, config: Event
):
    refused = post(at, key, "/v1/calls", config=config)
    assert refused.status_code == 422
    assert refused.json()["field"].startswith("session.")
