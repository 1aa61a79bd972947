"""Practice calls: a page, a telephone and a voice session, from the first to the last of their states."""

import asyncio
import base64
import re
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from psycopg import Connection

from dev.standin.realtime.server import Provider
from gateway.calls.twilio import signature
from tests.calling import CONFIG, SILENCE, SPEECH, Event, http, make, post, side
from tests.gateways import Gateway, gateway, talk
from tests.voices import at as at
from tests.voices import environment, holds, key_of, new_name
from tests.voices import key as key
from tests.voices import ledger as ledger
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url


def updates(there: Provider) -> list[Event]:
    return [
        e["session"]
        for link in there.links
        for e in link.received
        if e["type"] == "session.update"
    ]


def test_a_call_goes_through_its_states_and_its_page_hears_of_all(
    at: Gateway, key: str, there: Provider
):
    call = make(at, key)

    async def story() -> None:
        async with side(call["frontend_url"]) as page, side(call["media_url"]) as phone:
            await page.status("created")
            await page.status("waiting")
            audio = {"input": {"transcription": {"model": "whisper-1"}}}
            await page.say(type="job.config", version=1, config=CONFIG | {"audio": audio})
            await page.until("type", "config.received")
            await phone.start()
            told = await page.status("associated")
            assert told["streamSid"] == "MZ1"
            await page.until("type", "config.applied")
            await page.status("active")
            for n, chunk in enumerate([SPEECH] * 4 + [SILENCE] * 8):
                await phone.speak(chunk, n * 100)
            media = await phone.until("event", "media")
            assert media["streamSid"] == "MZ1"
            assert base64.b64decode(media["media"]["payload"])
            await phone.until("event", "mark")
            while {e["role"] for e in page.got if e["type"] == "call.transcript"} != {
                "user", "assistant"}:  # fmt: skip
                await page.until("type", "call.transcript")
            await phone.say(event="stop", stop={"callSid": "CA1"}, streamSid="MZ1")
            ended = await page.status("ended")
            assert ended == {
                "type": "call.status_changed",
                "status": "ended",
                "sessionId": call["call"],
                "streamSid": "MZ1",
                "reason": "hung_up",
            }
            assert (await page.closed())[0] == 1000
            assert (await phone.closed())[0] == 1000
        await holds(lambda: not there.open_links, "the provider's link to be closed")

    talk(story)
    told = [line for line in at.log.read_text().splitlines() if call["call"] in line]
    found = [re.search(r"call\.\w+", line) for line in told]
    steps = [one[0] for one in found if one]
    assert sorted(steps[:2]) == ["call.config", "call.page"]
    assert steps[2:5] == ["call.telephone", "call.applied", "call.ended"]
    assert steps[5:] == ["call.cleaned"] * 2
    (session,) = updates(there)
    assert session["instructions"] == CONFIG["instructions"]
    assert session["audio"]["output"]["voice"] == "ash"
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}


@pytest.mark.parametrize("first", ["page", "phone", "maker"])
def test_the_configuration_arrives_exactly_once_whichever_side_is_first(
    at: Gateway, key: str, there: Provider, first: str
):
    call = make(at, key, CONFIG if first == "maker" else None)

    async def story() -> None:
        async with side(call["frontend_url"]) as page, side(call["media_url"]) as phone:
            if first == "phone":
                await phone.start()
                await page.status("associated")
            for _ in range(3):  # a page says it again until it hears that it was applied
                await page.say(type="job.config", version=1, config=CONFIG)
            if first != "phone":
                await phone.start()
            applied = await page.until("type", "config.applied")
            assert applied["version"] == 1
            await page.say(type="job.config", version=1, config=CONFIG)
            await page.status("active")
            await page.say(type="job.config", version=2, config={"instructions": "Calm down."})
            assert (await page.until("type", "config.applied"))["version"] == 2
            await page.say(type="call.end")
            await page.closed()
            assert page.count("config.applied") == 2

    talk(story)
    assert [one["instructions"] for one in updates(there)] == [
        CONFIG["instructions"],
        "Calm down.",
    ]


def test_the_end_is_told_once_and_again_shares_nothing_with_before(
    at: Gateway, key: str, there: Provider
):
    process = psutil.Process(at.process.pid)

    async def once() -> str:
        call = make(at, key, CONFIG)
        async with side(call["frontend_url"]) as page, side(call["media_url"]) as phone:
            await phone.start(stream=new_name("MZ"))
            await page.status("active")
            await asyncio.to_thread(post, at, key, f"/v1/calls/{call['call']}/end")
            await asyncio.to_thread(post, at, key, f"/v1/calls/{call['call']}/end")
            assert (await page.closed())[0] == 1000
            assert (await phone.closed())[0] == 1000
            ends = [e for e in page.got if e.get("status") == "ended"]
            assert [e["reason"] for e in ends] == ["ended"]
        await holds(lambda: not there.open_links, "the provider's link to be closed")
        return call["call"]

    async def story() -> None:
        first = await once()
        before = process.num_fds()
        for _ in range(5):
            assert await once() != first
        await holds(lambda: process.num_fds() <= before + 4, "no socket to be left")

    talk(story)
    assert len(there.links) == 6
    assert all("conversation.item.create" not in link.kinds() for link in there.links)


def test_a_page_that_comes_back_is_told_all_and_after_the_end_too(
    at: Gateway, key: str, there: Provider
):
    call = make(at, key, CONFIG)

    async def story() -> None:
        async with side(call["media_url"]) as phone:
            async with side(call["frontend_url"]) as page:
                await page.status("waiting")
            await phone.start()
            async with side(call["frontend_url"]) as page:
                await page.status("active")
                assert page.got[0]["status"] == "created"
            assert there.open_links, "a page that leaves ends nothing"
        async with side(call["frontend_url"]) as page:
            assert (await page.closed())[0] == 1000
            assert page.got[-1]["reason"] == "media_closed"
        async with side(call["media_url"]) as late:
            assert (await late.closed())[0] == 4410

    talk(story)


def test_the_telephone_is_interrupted_when_its_caller_speaks(
    at: Gateway, key: str, there: Provider
):
    call = make(at, key, CONFIG)
    there.pace = 0.3

    async def story() -> None:
        async with side(call["frontend_url"]) as page, side(call["media_url"]) as phone:
            await phone.start()
            await page.status("active")
            for n, chunk in enumerate([SPEECH] * 4 + [SILENCE] * 8):
                await phone.speak(chunk, n * 100)
            await phone.until("event", "media")
            await phone.speak(SPEECH, 2000)
            await phone.until("event", "clear")
            kinds = there.links[-1].kinds
            await holds(lambda: "conversation.item.truncate" in kinds(), "how much was heard")
            await phone.say(event="stop")
            await page.closed()

    talk(story)


def test_who_speaks_when_all_was_heard_interrupts_nothing(
    at: Gateway, key: str, there: Provider
):
    call = make(at, key, CONFIG)

    async def story() -> None:
        async with side(call["frontend_url"]) as page, side(call["media_url"]) as phone:
            await phone.start()
            await page.status("active")
            for n, chunk in enumerate([SPEECH] * 4 + [SILENCE] * 8):
                await phone.speak(chunk, n * 100)
            played = (await phone.until("event", "mark"))["mark"]
            await phone.say(event="mark", streamSid="MZ1", mark=played)
            for n, chunk in enumerate([SPEECH] * 4 + [SILENCE] * 8):
                await phone.speak(chunk, 9000 + n * 100)
            await phone.until("event", "mark")
            assert "conversation.item.truncate" not in there.links[-1].kinds()
            await phone.say(event="stop")
            await page.closed()

    talk(story)


def test_nobody_gets_at_a_call_of_others_and_what_is_none_is_refused(
    at: Gateway, url: str, key: str, there: Provider
):
    call = make(at, key, CONFIG)["call"]
    rival, jobs = key_of(url, new_name("rival")), key_of(url, "acme", "jobs")
    assert post(at, rival, f"/v1/calls/{call}/end").json()["code"] == "unknown_call"
    assert post(at, jobs, "/v1/calls", config={}).status_code == 403
    assert post(at, key, "/v1/calls/reset").status_code == 403
    refused = post(at, key, "/v1/calls", config={"instructions": 7})
    assert (refused.status_code, refused.json()["field"]) == (422, "session.instructions")
    for odd in (
        r'{"instructions": "\u0000"}',
        r'{"instructions": "\ud83d"}',
        '{"audio": {"output": {"speed": 1e999}}}',
    ):
        said, kind = f'{{"config": {odd}}}', {"Content-Type": "application/json"}
        with http(at, key) as client:
            told = client.post("/v1/calls", content=said, headers=kind)
        assert (told.status_code, told.json()["code"]) == (422, "invalid_value")

    async def story() -> None:
        for name in ("frontend", "media"):
            wrong = at.url.replace("http", "ws") + f"/v1/calls/{uuid4().hex}/{name}"
            async with side(wrong) as one:
                assert (await one.closed())[0] == 4404
        async with side(f"{at.url.replace('http', 'ws')}/v1/calls/{call}/frontend") as page:
            await page.say(type="job.config", version=0, config={})
            assert (await page.until("type", "error"))["error"]["param"] == "version"
            await page.say(type="job.config", version=1, config={"instructions": "\x00"})
            assert (await page.until("type", "error"))["error"]["param"] == "session"
            await page.say(type="dance")
            assert (await page.until("type", "error"))["error"]["code"] == "unknown_event"

    talk(story)
    assert post(at, key, f"/v1/calls/{call}/end").json()["status"] == "ended"


def test_reset_ends_every_call_of_the_account_and_no_other(
    at: Gateway, url: str, there: Provider
):
    account = new_name("caller")
    key, operator = key_of(url, account), key_of(url, account, "operate")
    other = key_of(url, new_name("other"))

    async def story() -> None:
        made = [make(at, key, CONFIG) for _ in range(3)]
        spared = make(at, other, CONFIG)
        async with side(made[0]["frontend_url"]) as page, side(made[0]["media_url"]) as phone:
            await phone.start()
            await page.status("active")
            answer = await asyncio.to_thread(post, at, operator, "/v1/calls/reset")
            assert answer.json() == {"ended": 3, "states": {"active": 1, "created": 2}}
            assert (await page.status("ended"))["reason"] == "reset"
            assert (await phone.closed())[0] == 1000
        await holds(lambda: not there.open_links, "the provider's link to be closed")
        again = await asyncio.to_thread(post, at, operator, "/v1/calls/reset")
        assert again.json()["ended"] == 0
        ended = await asyncio.to_thread(post, at, other, f"/v1/calls/{spared['call']}/end")
        assert ended.json()["reason"] == "ended", "it was not reset"

    talk(story)


def test_a_call_whose_other_side_does_not_come_ends_by_itself_and_few_may_be_open(
    url: str, redis_server: str, running: Provider, there: Provider, tmp_path: Path
):
    key = key_of(url, new_name("waits"))
    env = environment(running) | {"BATON_CALL_WAIT": "1", "BATON_CALLS_OPEN": "1"}

    async def story(one: Gateway) -> None:
        call = make(one, key, CONFIG)
        more = post(one, key, "/v1/calls", config=CONFIG)
        assert (more.status_code, more.json()["code"]) == (429, "too_many_calls")
        async with side(call["frontend_url"]) as page:
            assert (await page.status("ended"))["reason"] == "timeout"

    with gateway(url, redis_server, tmp_path / "log", **env) as one:
        talk(lambda: story(one))


def test_two_gateways_serve_the_two_sides_of_one_call(
    at: Gateway, url: str, redis_server: str, running: Provider, there: Provider, key: str,
    tmp_path: Path,
):  # fmt: skip
    async def story(other: Gateway) -> None:
        call = make(at, key)
        elsewhere = f"{other.url.replace('http', 'ws')}/v1/calls/{call['call']}/media"
        async with side(call["frontend_url"]) as page, side(elsewhere) as phone:
            await phone.start()
            await page.status("associated")
            await page.say(type="job.config", version=1, config=CONFIG)
            await page.status("active")
            await asyncio.to_thread(post, at, key, f"/v1/calls/{call['call']}/end")
            await page.closed()
            assert (await phone.closed())[0] == 1000

    with gateway(url, redis_server, tmp_path / "log", **environment(running)) as other:
        talk(lambda: story(other))


def test_a_media_stream_must_be_signed_where_a_token_is_set(
    url: str, redis_server: str, running: Provider, there: Provider, key: str, tmp_path: Path
):
    env = environment(running) | {"BATON_TWILIO_TOKEN": "a-token"}

    async def story(one: Gateway) -> None:
        call = make(one, key, CONFIG)
        address = call["media_url"]
        for headers in ({}, {"X-Twilio-Signature": signature("another", address)}):
            async with side(address, **headers) as phone:
                assert (await phone.closed())[0] == 4401
        good = {"X-Twilio-Signature": signature("a-token", address)}
        async with side(address, **good) as phone, side(call["frontend_url"]) as page:
            await phone.start()
            await page.status("active")

    with gateway(url, redis_server, tmp_path / "log", **env) as one:
        talk(lambda: story(one))


def test_a_call_without_credit_ends_and_says_why(
    at: Gateway, url: str, there: Provider, ledger: Connection
):
    account = new_name("poor")
    key = key_of(url, account)
    ledger.execute("update accounts set token_remaining = 0 where id = %s", (account,))
    call = make(at, key, CONFIG)

    async def story() -> None:
        async with side(call["frontend_url"]) as page, side(call["media_url"]) as phone:
            await phone.start()
            assert (await page.status("ended"))["reason"] == "no_credits"
            assert "no_credits" in [e.get("code") for e in page.got]

    talk(story)
    assert there.asked == 0
