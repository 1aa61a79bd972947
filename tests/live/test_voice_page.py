"""`/app/voice` in Chromium against a real gateway and the stand-in provider; its microphone is a file."""

import math
import wave
from array import array
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import psutil
import pytest

from dev.standin.realtime.server import Provider
from tests.gateways import Gateway, gateway
from tests.live.node import needs_chromium, needs_node, needs_packages, node
from tests.voices import at as at
from tests.voices import environment
from tests.voices import key as key
from tests.voices import running as running
from tests.voices import there as there
from tests.voices import url as url
from tests.waiting import wait_until

pytestmark = [needs_node, needs_packages, needs_chromium]
RATE = 48_000


def test_somebody_speaks_and_a_practice_call_is_made_in_chromium(
    at: Gateway, key: str, there: Provider, tmp_path: Path
):
    there.cue("close", on="response.create", code=1001)
    _run(at, key, tmp_path, "the microphone is heard|the nine states")
    assert not there.cues.waiting, "the provider has closed once"
    wait_until(lambda: not there.open_links, description="every link to be closed")
    told = [e for link in there.links for e in link.received if e["type"] == "session.update"]
    assert "You are a customer." in {e["session"]["instructions"] for e in told}


@pytest.mark.long
@pytest.mark.timeout(600)
def test_what_people_do_with_the_page(at: Gateway, key: str, there: Provider, tmp_path: Path):
    gateway = psutil.Process(at.process.pid)
    _run(at, key, tmp_path, "manual 1")
    before = gateway.num_fds()
    _run(at, key, tmp_path, "manual|fast|a key that|service worker|on a phone")
    wait_until(lambda: not there.open_links, description="every link to be closed")
    wait_until(lambda: gateway.num_fds() <= before + 8, description="every socket to be closed")
    told = [
        e["session"]["instructions"]
        for link in there.links
        for e in link.received
        if e["type"] == "session.update"
    ]
    assert [one for one in told if one.endswith("one.")] == [
        "The first one.",
        "The second one.",
    ]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_gateway_that_is_killed_in_mid_answer_is_followed_by_another_and_the_page_goes_on(
    url: str, redis_server: str, key: str, there: Provider, tmp_path: Path
):
    """By itself, with its session: what was configured and said is the new link's too."""
    there.pace = 0.1
    env = environment(there)
    with ExitStack() as held:
        first = held.enter_context(gateway(url, redis_server, tmp_path / "first", **env))
        env["BATON_WEB_PORT"] = first.url.rpartition(":")[2]  # the next one takes its place

        def follow() -> None:
            first.process.wait()
            there.pace = 0.0
            held.enter_context(gateway(url, redis_server, tmp_path / "next", **env))

        following = Thread(target=follow)
        following.start()
        try:
            _run(first, key, tmp_path, "killed", PID=str(first.process.pid))
        finally:
            first.process.kill()
            following.join()
        wait_until(lambda: not there.open_links, description="every link to be closed")
    told = there.links[-1].received
    said = [e["item"]["content"][0]["text"] for e in told if "item" in e]
    # The microphone may have been heard before it was muted.
    texts = [text for text in said if "bytes of speech" not in text]
    assert (
        told[0]["session"]["instructions"]
        == there.links[0].received[0]["session"]["instructions"]
    )
    assert texts[:2] == ["Remember the sea.", "You said: Remember the sea."]
    assert texts[-1] == "Are you there?"


def _run(at: Gateway, key: str, tmp_path: Path, names: str, **more: str) -> None:
    ran = node(
        *("--test", "--test-reporter=tap", f"--test-name-pattern={names}"),
        Path(__file__).with_name("voice.browser.mjs"),
        timeout=580,
        GATE=at.url,
        KEY=key,
        SPEECH=str(_speech(tmp_path / "speech.wav")),
        **more,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# fail 0" in ran.stdout
    assert "# pass 0" not in ran.stdout


def _speech(path: Path) -> Path:
    """Something like a word, then silence for two seconds; Chromium plays it again and again."""
    said = (
        int(12_000 * math.sin(n * 2 * math.pi * 220 / RATE) * abs(math.sin(n * 20 / RATE)))
        for n in range(RATE)
    )
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(array("h", said).tobytes() + bytes(2 * 2 * RATE))
    return path
