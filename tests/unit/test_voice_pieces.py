"""The parts of voice that need no provider: shapes, items, what is under way, addresses."""

import asyncio
from typing import Any, cast

import pytest
from openai.types.realtime import RealtimeSessionCreateRequest
from openai.types.realtime.realtime_audio_config_input import RealtimeAudioConfigInput
from openai.types.realtime.realtime_audio_config_output import RealtimeAudioConfigOutput
from starlette.websockets import WebSocket

from gateway.calls import twilio
from gateway.voice import door, events, shape
from gateway.voice.conversation import Conversation, again
from gateway.voice.ends import Ended
from gateway.voice.link import address
from gateway.voice.outbox import Outbox
from gateway.voice.replay import steps
from gateway.voice.shape import Misshapen, checked
from gateway.voice.turns import Turns

Event = dict[str, Any]


def test_every_key_of_the_official_client_is_known_but_those_that_cannot_be_set():
    known = set(shape.Session.model_fields)
    assert known == set(RealtimeSessionCreateRequest.model_fields) - {"model"}
    assert set(shape.Input.model_fields) == set(RealtimeAudioConfigInput.model_fields)
    assert set(shape.Output.model_fields) == set(RealtimeAudioConfigOutput.model_fields)


def test_what_must_not_be_sent_back_is_left_out_and_null_stays_where_it_means_off():
    told = {
        "type": "realtime",
        "id": "sess_1",
        "object": "realtime.session",
        "expires_at": 1,
        "client_secret": {"value": "ek_1"},
        "model": "m",
        "tracing": None,
        "prompt": None,
        "tools": [
            {
                "type": "mcp",
                "server_label": "s",
                "authorization": "secret",
                "headers": {"a": "b"},
            }
        ],
        "audio": {
            "input": {"turn_detection": None, "transcription": None, "format": None},
            "output": {"voice": {"id": "voice_1", "more": 1}},
        },
    }
    assert checked(told) == {
        "type": "realtime",
        "tools": [{"type": "mcp", "server_label": "s"}],
        "audio": {
            "input": {"turn_detection": None, "transcription": None},
            "output": {"voice": {"id": "voice_1"}},
        },
    }


@pytest.mark.parametrize("session", [None, 7, [], {}, {"type": "other"}, {"instructions": "x"}])
def test_missing_empty_and_invalid_are_told_apart_from_none(session: object):
    with pytest.raises(Misshapen):
        shape.update(session)
    assert shape.stored(None) is None


def test_null_stays_in_what_is_the_clients_own():
    schema = {"type": "object", "properties": {"size": {"default": None, "enum": ["s", None]}}}
    told = {
        "type": "realtime",
        "prompt": {"id": "p", "version": None, "variables": {"name": None}},
        "tools": [{"type": "function", "name": "f", "description": None, "parameters": schema}],
    }
    assert checked(told) == {
        "type": "realtime",
        "prompt": {"id": "p", "variables": {"name": None}},
        "tools": [{"type": "function", "name": "f", "parameters": schema}],
    }


def test_tools_come_after_all_else_and_only_if_there_are_some():
    plain: Event = {"type": "session.update", "session": {"type": "realtime", "tools": []}}
    assert steps(None) == []
    assert steps(plain) == [plain]
    tools = [{"type": "function", "name": "f"}]
    session = {"type": "realtime", "instructions": "x", "tools": tools, "tool_choice": "auto"}
    first, then = (
        one["session"] for one in steps({"type": "session.update", "session": session})
    )
    assert first == {"type": "realtime", "instructions": "x"}
    assert then == {"type": "realtime", "tools": tools, "tool_choice": "auto"}


def done(name: str, role: str, *content: Event) -> Event:
    item = {"id": name, "type": "message", "role": role, "content": list(content)}
    return {"type": "conversation.item.done", "item": item}


def test_items_are_kept_as_text_in_the_order_of_the_conversation():
    talk = Conversation()
    spoken = {"type": "input_audio", "transcript": None}
    assert not talk.note(done("u1", "user", spoken)), "audio without a transcript is not kept"
    talk.note(done("a1", "assistant", {"type": "output_audio", "transcript": "Good morning"}))
    kind = "conversation.item.input_audio_transcription.completed"
    assert talk.note({"type": kind, "item_id": "u1", "transcript": "Hello"})
    assert not talk.note(done("u1", "user", spoken)), "and what is known of it stays"
    assert [(i["id"], i["content"][0]) for i in talk.replayed()] == [
        ("u1", {"type": "input_text", "text": "Hello"}),
        ("a1", {"type": "output_text", "text": "Good morning"}),
    ]
    talk.note({"type": "conversation.item.deleted", "item_id": "u1"})
    assert [i["id"] for i in talk.replayed()] == ["a1"]


def test_an_item_is_placed_where_the_provider_says():
    talk = Conversation()
    for name, previous in (("b", None), ("d", "b"), ("c", "b"), ("a", "root")):
        added = {"type": "conversation.item.added", "item": {"id": name}}
        talk.note(added | {"previous_item_id": previous})
        talk.note(done(name, "user", {"type": "input_text", "text": name}))
    assert [i["id"] for i in talk.replayed()] == ["a", "b", "c", "d"]


def test_what_a_client_wrote_is_kept_as_soon_as_it_is_in_the_conversation():
    """The link may die before the item's `done`, and the outbox has given it away by then."""
    talk = Conversation()
    item = done("u1", "user", {"type": "input_text", "text": "Hello"})["item"]
    begun = {"type": "conversation.item.added", "item": item | {"status": "in_progress"}}
    assert not talk.note(begun), "what is not complete is not"
    added = {"type": "conversation.item.added", "item": item | {"status": "completed"}}
    assert talk.note(added)
    assert [i["id"] for i in talk.replayed()] == ["u1"]


def test_of_an_answer_that_was_interrupted_as_much_is_kept_as_was_heard():
    talk = Conversation()
    text = "one two three four five six seven eight nine ten"
    talk.hear("a1", 64_000)  # of base64: 1000 ms of PCM
    talk.note(done("a1", "assistant", {"type": "output_audio", "transcript": text}))
    cut = {"type": "conversation.item.truncated", "item_id": "a1", "content_index": 0}
    assert talk.note(cut | {"audio_end_ms": 500})
    (item,) = talk.replayed()
    assert item["content"][0]["text"] == "one two three four five"
    talk.note(cut | {"audio_end_ms": 0})
    assert talk.replayed() == []


def test_a_result_is_replayed_only_with_its_call():
    call = {"id": "c", "type": "function_call", "name": "f", "call_id": "1", "arguments": "{}"}
    result = {"id": "r", "type": "function_call_output", "call_id": "1", "output": "x"}
    orphan = result | {"id": "o", "call_id": "2"}
    assert again(call | {"object": "realtime.item", "status": "completed"}) == call
    assert Conversation.of([call, result, orphan]).replayed() == [call, result]
    assert Conversation.of("nonsense").replayed() == []
    assert Conversation.of([7, {}, {"id": "x", "type": "mcp_call"}]).replayed() == []


def test_what_is_confirmed_is_no_longer_under_way_and_the_rest_is():
    outbox = Outbox()

    def put(kind: str, **more: Any) -> None:
        event = {"type": kind, **more}
        assert outbox.put(event, events.text_of(event))

    put("session.update", event_id="u1")
    put("session.update", event_id="u2")
    put("conversation.item.create", item={"id": "mine"})
    put("conversation.item.create", item={})
    put("response.create")
    outbox.confirm({"type": "error", "error": {"event_id": "u1"}})
    outbox.confirm({"type": "error", "error": {"event_id": None}})
    outbox.confirm({"type": "conversation.item.added", "item": {"id": "mine"}})
    outbox.confirm({"type": "conversation.item.added", "item": {"id": "theirs"}})
    assert [entry.event_id or entry.kind for entry in outbox.entries] == [
        "u2",
        "response.create",
    ]
    outbox.confirm({"type": "session.updated"})
    outbox.confirm({"type": "response.created"})
    assert (len(outbox.entries), outbox.size) == (0, 0)


@pytest.mark.parametrize(
    ("event", "tries"),
    [
        ({"type": "session.created"}, 3),
        ({"type": "response.created", "response": {"id": "r"}}, 0),
        ({"type": "conversation.item.input_audio_transcription.completed"}, 0),
        ({"type": "conversation.item.input_audio_transcription.failed"}, 3),
    ],
)
def test_only_an_answer_of_the_provider_begins_the_count_of_links_anew(
    event: Event, tries: int
):
    turns = Turns(tries=3)
    turns.watch(event)
    assert turns.tries == tries


def test_too_much_that_waits_is_refused():
    outbox = Outbox()
    event = {"type": "session.update"}
    while outbox.put(event, "x" * 100_000):
        pass
    assert outbox.size <= 4 * 2**20


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("wss://api.openai.com/v1/realtime", "wss://api.openai.com/v1/realtime?model=a%20b"),
        ("https://host/v1", "wss://host/v1/realtime?model=a%20b"),
        ("ws://127.0.0.1:9", "ws://127.0.0.1:9/v1/realtime?model=a%20b"),
        (
            "ws://host/x/realtime?api-version=2",
            "ws://host/x/realtime?api-version=2&model=a%20b",
        ),
    ],
)
def test_the_providers_address_is_completed(url: str, wanted: str):
    assert address(url, "a b") == wanted


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            '{"event_id": "e", "type": "response.output_audio.delta"}',
            "response.output_audio.delta",
        ),
        ('{"type":"response.done"}', None),
        ('{"item":{"type":"response.output_audio.delta"}}', None),
        ("nonsense", None),
    ],
)
def test_of_the_provider_only_deltas_are_passed_on_unread(text: str, kind: str | None):
    assert events.delta(text) == kind


@pytest.mark.parametrize(
    ("text", "audio"),
    [
        ('{"type":"input_audio_buffer.append","audio":"AA"}', True),
        ('{ "event_id": "e", "type": "input_audio_buffer.append", "audio": "AA" }', True),
        ('{"type":"session.update"}', False),
        ('{"type":"input_audio_buffer.append","type":"response.create"}', False),
        ('{"type":"input_audio_buffer.append","\\u0074ype":"response.create"}', False),
        ("nonsense", False),
    ],
)
def test_of_a_client_only_audio_is_passed_on_unread(text: str, audio: bool):
    """What reads it counts the last of two types, so one that hides behind audio is read here too."""
    assert events.is_audio(text) is audio


def test_a_signature_is_what_twilio_publishes_as_an_example():
    """Of its own documentation of signed requests: the address, then the parameters in order."""
    signed = (
        "https://mycompany.com/myapp.php?foo=1&bar=2CallSidCA1234567890ABCDECaller+14158675309"
        "Digits1234From+14158675309To+18005551212"
    )
    assert twilio.signature("12345", signed) == "RSOYDt4T1cUTdK1PDd93/VVr8B8="


class Stuck:
    """A socket that takes nothing."""

    client_state = None

    async def send_text(self, text: str) -> None:
        await asyncio.Event().wait()


def test_a_reader_that_takes_nothing_is_closed_with_1013(monkeypatch: pytest.MonkeyPatch):
    """Seen beside the stream: no piece of audio has a timer of its own."""
    monkeypatch.setattr(door, "SLOW", 0.05)

    async def story() -> None:
        caller = door.Caller(cast("WebSocket", Stuck()))
        telling = asyncio.create_task(caller.send("x"))
        with pytest.raises(Ended) as told:
            await asyncio.wait_for(caller.watch(), 60)
        telling.cancel()
        assert told.value.code == 1013

    asyncio.run(story())
