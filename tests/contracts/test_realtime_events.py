"""What we believe of the real provider of voice, one event a line in realtime_events.jsonl.

BELIEVED, NOT RECORDED: the lines were written down from the official client's types and public
documentation, since no real provider can be reached from here. Whoever has one replaces them with what it
says, and these tests show what that changes: for the client, for what is kept, for the stand-in.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from websockets.asyncio.client import connect

from dev.standin.realtime.server import provider
from gateway.voice import events
from gateway.voice.conversation import Conversation
from gateway.voice.memory import Memory

Event = dict[str, Any]
LINES = Path(__file__).with_name("realtime_events.jsonl").read_text().splitlines()
BELIEVED: list[Event] = [json.loads(line) for line in LINES]
WEATHER = {"type": "function", "name": "weather"}
AUDIO = {"input": {"transcription": {"model": "whisper-1"}}}
ASKED = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": "call weather"}],
}
SAID: list[tuple[Event, str]] = [  # and what is waited for then
    ({"type": "session.update", "session": {"type": "realtime", "audio": AUDIO, "tools": [WEATHER]}},
     "session.updated"),
    ({"type": "conversation.item.create", "item": ASKED}, "conversation.item.done"),
    ({"type": "response.create"}, "response.done"),
    ({"type": "input_audio_buffer.append", "audio": "/38A" * 8000}, "input_audio_buffer.speech_started"),
    ({"type": "input_audio_buffer.append", "audio": "AAAA" * 16000}, "response.done"),
    ({"type": "session.update", "session": {}}, "error"),
]  # fmt: skip


def test_the_official_client_reads_each_of_them():
    reads: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
    for event in BELIEVED:
        read = reads.validate_python(event)
        assert read.type == event["type"]
        assert not read.model_extra, (event["type"], "has a key that the client does not know")


def test_of_such_a_conversation_what_can_be_said_again_is_kept_and_charged():
    memory, talk, tokens = Memory(), Conversation(), 0
    for event in BELIEVED:
        talk.note(event)
        if event["type"] == "session.updated":
            assert memory.accept(event, "s")
        if event["type"] == "response.done":
            tokens += events.tokens(event)
    assert tokens == 60
    assert memory.config
    session = memory.config["session"]
    assert not {"id", "object", "expires_at", "client_secret", "model"} & set(session)
    assert [(item["role"], item["content"][0]["text"]) for item in talk.replayed()] == [
        ("user", "Hello."),
        ("assistant", "Good"),
    ], "of the answer what was heard; the call was deleted"


def test_the_stand_in_says_nothing_that_is_not_believed():
    """Its events are of these types, and have no keys but these."""
    believed: dict[str, set[str]] = {}
    for event in BELIEVED:
        believed.setdefault(str(event["type"]), set()).update(event.keys())

    async def story() -> list[Event]:
        told: list[Event] = []
        async with provider() as one, connect(f"{one.url}?model=m", proxy=None) as ws:
            for event, awaited in SAID:
                await ws.send(json.dumps(event))
                while not told or told[-1]["type"] != awaited:
                    told.append(json.loads(await ws.recv()))
                told.append({"type": ""})  # the next is to be waited for
        return [event for event in told if len(event) > 1]

    told = asyncio.run(story())
    kinds = {event["type"] for event in told}
    assert {"response.function_call_arguments.done", "response.output_audio.delta"} <= kinds
    more = {
        f"{event['type']}: {key}"
        for event in told
        for key in event.keys() - believed.get(str(event["type"]), set())
    }
    assert more == set()
