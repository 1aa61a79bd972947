"""`/v1/realtime` without turn detection: the client says when a turn has ended, and no audio goes in silence."""

import base64
import time
from pathlib import Path

from dev.standin.realtime.server import Provider
from tests.gateways import Gateway, gateway, talk
from tests.voices import Voice, environment, holds, voice
from tests.voices import at as at
from tests.voices import key as key
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url

BY_HAND = {"input": {"turn_detection": None}}
PIECE = base64.b64encode(bytes(4800)).decode()  # 100 ms


async def _speak(one: Voice, there: Provider, pieces: int = 1) -> None:
    """Say them, until the provider has them."""
    link = there.links[-1]
    wanted = link.kinds().count("input_audio_buffer.append") + pieces
    for _ in range(pieces):
        await one.say("input_audio_buffer.append", audio=PIECE)
    await holds(
        lambda: link.kinds().count("input_audio_buffer.append") >= wanted,
        "the audio to be there",
    )


def test_a_link_is_not_changed_while_somebody_holds_the_button(
    url: str, redis_server: str, running: Provider, there: Provider, key: str, tmp_path: Path
):
    async def story(old: Gateway) -> None:
        async with voice(old, key) as one:
            await one.configure(audio=BY_HAND)
            began = time.monotonic()
            await _speak(one, there)
            await holds(lambda: time.monotonic() > began + 2, "the link to be too old")
            assert len(there.links) == 1, "its audio would have gone with it"
            await one.say("input_audio_buffer.commit")
            await one.until("input_audio_buffer.committed")
            await one.state("connected")
            assert len(there.links) == 2

    env = environment(running) | {"BATON_REALTIME_ROTATE": "1"}
    with gateway(url, redis_server, tmp_path / "log", **env) as old:
        talk(lambda: story(old))


def test_a_commit_of_audio_that_went_with_the_link_is_answered(
    at: Gateway, key: str, there: Provider
):
    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(audio=BY_HAND)
            await _speak(one, there)
            there.cue("status", on="connect", code=503, times=3)
            there.close_all(1001)
            await one.state("reconnecting")
            await one.say("input_audio_buffer.commit", event_id="mine")
            error = (await one.until("error"))["error"]
            assert (error["code"], error["event_id"]) == ("input_audio_lost", "mine")
            await one.state("connected")

    talk(story)


def test_what_the_provider_refuses_of_a_replay_names_no_event_that_the_client_never_said(
    at: Gateway, key: str, there: Provider
):
    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(instructions="x")
            there.cue("refuse", on="session.update", param="session.instructions")
            there.close_all(1001)
            error = (await one.until("error"))["error"]
            assert (error["param"], error["event_id"]) == ("session.instructions", None)
            await one.state("connected")

    talk(story)
