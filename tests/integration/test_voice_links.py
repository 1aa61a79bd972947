"""The provider closes, dies, refuses or grows old: the client's session goes on, or ends for good."""

import asyncio
import base64
import signal
from array import array
from pathlib import Path

import pytest
from psycopg import Connection

from dev.standin.realtime.server import Provider
from tests.gateways import Gateway, gateway, talk
from tests.voices import (
    PROVIDER_KEY,
    Voice,
    environment,
    holds,
    kept,
    new_name,
    row,
    voice,
)
from tests.voices import at as at
from tests.voices import key as key
from tests.voices import ledger as ledger
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
LOUD = base64.b64encode(array("h", [9000, -9000] * 2400).tobytes()).decode()  # 200 ms
SILENT = base64.b64encode(bytes(9600)).decode()


async def back(one: Voice) -> None:
    """Until the provider was away and is there again."""
    await one.state("reconnecting")
    await one.state("connected")


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1011])
def test_a_link_that_ends_by_itself_is_followed_by_one_that_knows_all(
    at: Gateway, key: str, there: Provider, ledger: Connection, code: int
):
    name = new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.configure(instructions="You are Ada.", tools=[TOOL], tool_choice="auto")
            await one.ask("Good morning")
            await kept(ledger, name, "You are Ada.")
            before = row(ledger, name)
            there.close_all(code)
            await back(one)
            first, second = there.links
            assert second.kinds() == ["session.update"] * 2 + ["conversation.item.create"] * 2
            assert second.received[0]["session"]["instructions"] == "You are Ada."
            assert "tools" not in second.received[0]["session"]
            assert second.received[1]["session"]["tools"] == first.session["tools"]
            assert [e["item"]["id"] for e in second.received[2:]] == [
                i["id"] for i in first.items
            ]
            assert row(ledger, name)[2] >= before[2]
            seen = len(one.got)
            assert (await one.ask("Are you still Ada?"))["status"] == "completed"
            later = [e["type"] for e in one.got[seen:]]
            assert "session.created" not in later, "of the replay the client hears nothing"
            assert "session.updated" not in later

    talk(story)


def test_a_session_that_expires_is_told_and_goes_on(at: Gateway, key: str, there: Provider):
    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(instructions="x")
            there.cue("error", on="response.create", code="session_expired", close=1001)
            await one.write("Hello")
            await one.say("response.create", event_id="r1")
            error = (await one.until("error"))["error"]
            assert (error["code"], error["event_id"]) == ("session_expired", "r1")
            await back(one)
            assert there.links[1].received[0]["session"]["instructions"] == "x"

    talk(story)


def test_a_response_that_was_cut_off_is_told_as_cancelled(
    at: Gateway, key: str, there: Provider
):
    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(instructions="x")
            await one.write("Tell me a story")
            there.cue("cut", on="piece")
            await one.say("response.create")
            begun = (await one.until("response.created"))["response"]["id"]
            told = await one.until("response.cancelled")
            assert told["response"]["id"] == begun
            done = (await one.until("response.done"))["response"]
            assert (done["id"], done["status"]) == (begun, "cancelled")
            assert done["status_details"]["reason"] == "provider_lost"
            await back(one)
            assert "response.create" not in there.links[1].kinds(), "it is not asked for again"
            assert (await one.ask("Go on"))["status"] == "completed"

    talk(story)


def test_what_the_provider_had_not_confirmed_is_sent_again_after_the_replay(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    name = new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.configure(instructions="first")
            there.cue("close", on="session.update")
            await one.say(
                "session.update", session={"type": "realtime", "instructions": "second"}
            )
            await one.until(
                "session.updated", lambda e: e["session"]["instructions"] == "second"
            )
            sent = [e["session"]["instructions"] for e in there.links[1].received]
            assert sent == ["first", "second"]
            await kept(ledger, name, "second")
            there.cue("close", on="response.create")
            assert (await one.ask("Hello"))["status"] == "completed"

    talk(story)


def test_what_the_provider_refused_is_not_sent_again(at: Gateway, key: str, there: Provider):
    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(instructions="x")
            there.cue(
                "error", on="response.create", code="conversation_already_has_active_response"
            )
            await one.say("response.create", event_id=None)  # most clients give it none
            refused = (await one.until("error"))["error"]
            assert (refused["code"], refused["event_id"]) == (
                "conversation_already_has_active_response", None)  # fmt: skip
            there.close_all()
            await back(one)
            await one.write("half a character: \ud83d")
            assert "response.create" not in there.links[1].kinds()

    talk(story)


def test_what_is_said_while_the_provider_is_away_waits_and_audio_does_not(
    at: Gateway, key: str, there: Provider
):
    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(instructions="x")
            there.cue("status", on="connect", code=503, times=2)
            there.close_all()
            await one.state("reconnecting")
            await one.say("input_audio_buffer.append", audio=LOUD)
            item = {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}],
            }
            await one.say("conversation.item.create", item=item)
            await one.until("conversation.item.done")
            assert there.links[1].kinds() == ["session.update", "conversation.item.create"]

    talk(story)


def test_the_first_link_may_take_a_while_and_nothing_said_is_lost(
    at: Gateway, key: str, there: Provider
):
    async def story() -> None:
        there.cue("status", on="connect", code=503)
        async with voice(at, key) as one:
            await one.say("input_audio_buffer.append", audio=LOUD)
            assert (await one.configure(instructions="x"))["session"]["instructions"] == "x"
            assert there.links[0].kinds() == ["input_audio_buffer.append", "session.update"]

    talk(story)


def test_a_link_is_changed_for_a_new_one_between_responses_before_it_is_too_old(
    url: str, redis_server: str, running: Provider, there: Provider, key: str, tmp_path: Path
):
    there.pace = 0.4

    async def story(old: Gateway) -> None:
        async with voice(old, key) as one:
            await one.configure(instructions="x")
            response = await one.ask("one two three four five six")
            assert response["status"] == "completed", "nobody is interrupted"
            await back(one)
            assert there.links[1].received[0]["session"]["instructions"] == "x"
            assert len(there.open_links) == 1

    env = environment(running) | {"BATON_REALTIME_ROTATE": "1"}
    with gateway(url, redis_server, tmp_path / "log", **env) as old:
        talk(lambda: story(old))


@pytest.mark.parametrize(
    "code", ["insufficient_quota", "invalid_api_key", "account_deactivated"]
)
def test_a_fatal_code_ends_the_session_and_is_never_tried_again(
    at: Gateway, key: str, there: Provider, code: str
):
    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(instructions="x")
            there.cue("error", on="response.create", code=code, close=1008)
            await one.say("response.create")
            assert (await one.closed())[0] == 4502
            assert [e["error"]["code"] for e in one.got if e["type"] == "error"] == [code]
            assert "baton.provider" not in one.kinds()
        await asyncio.sleep(0.5)  # the longest pause before a second link
        assert there.asked == 1

    talk(story)


def test_a_gateway_whose_key_the_provider_does_not_know_says_so_once(
    url: str, redis_server: str, running: Provider, there: Provider, key: str, tmp_path: Path
):
    async def story(wrong: Gateway) -> None:
        async with voice(wrong, key) as one:
            assert (await one.closed())[0] == 4502
            (error,) = one.got
            assert error["error"]["code"] == "invalid_api_key"
            assert error["error"]["message"] == "Incorrect API key provided."
        assert there.asked == 1

    env = environment(running) | {"OPENAI_API_KEY": PROVIDER_KEY + "-old"}
    with gateway(url, redis_server, tmp_path / "log", **env) as wrong:
        talk(lambda: story(wrong))


def test_a_provider_that_only_lets_in_and_closes_is_no_reconnect_loop(
    at: Gateway, key: str, there: Provider
):
    """The seed's reconnect loop: its count of tries began anew with each link that came up."""

    async def story() -> None:
        async with voice(at, key) as one:
            await one.until("session.created")
            there.cue("close", on="created", times=1000)
            there.close_all()
            await one.state("reconnecting")
            await asyncio.sleep(3.0)
            assert there.asked <= 8, "0.1 s, 0.2 s, 0.4 s … apart, half of it by chance"
            there.cues.waiting.clear()
            assert (await one.ask("Hello"))["status"] == "completed"
            before = there.asked
            there.close_all()
            await one.state("reconnecting")
            async with asyncio.timeout(30):
                await one.state("connected")
            assert there.asked == before + 1, "after a response the count is at its beginning"

    talk(story)


def test_the_seeds_seven_steps_leave_one_link(at: Gateway, key: str, there: Provider):
    """A connects, A's provider is lost, B is made: in the seed A's handlers lived on, and closed B."""

    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(instructions="x")
            for step in range(7):
                there.close_all(1006)
                await back(one)
                assert len(there.links) == step + 2
                assert len(there.open_links) == 1
                assert (await one.ask("Are you there?"))["status"] == "completed"
            assert one.kinds().count("baton.provider") == 14
        await holds(lambda: not there.open_links, "the last one to be closed")
        await asyncio.sleep(0.5)  # the longest pause before another
        assert there.asked == 8

    talk(story)


def test_a_turn_is_heard_and_an_answer_is_interrupted_by_speech(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    name = new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            audio = {"input": {"transcription": {"model": "whisper-1"}}}
            await one.configure(instructions="x", audio=audio)
            for chunk in [LOUD] * 2 + [SILENT] * 3:
                await one.say("input_audio_buffer.append", audio=chunk)
            await one.until("input_audio_buffer.speech_stopped")
            await one.until("response.output_audio.delta")
            await one.until("response.done")
            there.pace = 0.2
            await one.say("response.create")
            await one.until("response.output_audio.delta")
            await one.say("input_audio_buffer.append", audio=LOUD)
            done = (await one.until("response.done"))["response"]
            assert (done["status"], done["status_details"]["reason"]) == (
                "cancelled", "turn_detected")  # fmt: skip
            await holds(lambda: len(row(ledger, name)[1]) >= 2, "what was said to be kept")

    talk(story)
    spoken, answer = row(ledger, name)[1][:2]
    assert (spoken["role"], spoken["content"][0]["type"]) == ("user", "input_text")
    assert (answer["role"], answer["content"][0]["type"]) == ("assistant", "output_text")


def test_a_gateway_that_is_killed_loses_nothing_that_was_kept(
    url: str, redis_server: str, running: Provider, there: Provider, key: str,
    ledger: Connection, tmp_path: Path,
):  # fmt: skip
    name = new_name()

    async def killed(one_of: Gateway) -> None:
        async with voice(one_of, key, name) as one:
            await one.configure(instructions="Keep me.")
            await one.ask("Hello")
            await holds(lambda: len(row(ledger, name)[1]) == 2, "both sides to be kept")
            one_of.process.send_signal(signal.SIGKILL)
            await holds(lambda: not there.open_links, "its link to be gone")

    async def another(one_of: Gateway) -> None:
        async with voice(one_of, key, name) as one:
            told = await one.until("session.updated")
            assert told["session"]["instructions"] == "Keep me."
            await holds(lambda: len(there.links[-1].items) == 2, "the items to be there")

    with gateway(url, redis_server, tmp_path / "one", **environment(running)) as first:
        talk(lambda: killed(first))
    with gateway(url, redis_server, tmp_path / "two", **environment(running)) as second:
        talk(lambda: another(second))
