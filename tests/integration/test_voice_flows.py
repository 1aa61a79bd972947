"""`/v1/realtime` with the official client: new sessions, known ones, and whose they are."""

import asyncio
import json
import re
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.types.json import Jsonb
from websockets.asyncio.client import connect

from dev.standin.realtime.server import Provider
from tests.gateways import Gateway, talk
from tests.voices import (
    MODEL,
    Event,
    closed_with,
    holds,
    instructions,
    kept,
    key_of,
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

TOOL: Event = {"type": "function", "name": "weather", "description": "Now.", "parameters": {}}


def test_a_new_session_is_kept_when_the_provider_has_accepted_its_configuration(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    name = new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            assert (await one.hear())["type"] == "session.created"
            assert there.links[-1].received == [], "an empty session has nothing to replay"
            assert row(ledger, name)[0] is None, "nor is it kept"
            told = await one.configure(instructions="Be brief.", output_modalities=["text"])
            assert told["session"]["instructions"] == "Be brief."
            await kept(ledger, name, "Be brief.")
            answer = await one.ask("Is it raining?")
            assert answer["output"][0]["content"][0]["text"] == "You said: Is it raining?"
            await holds(lambda: len(row(ledger, name)[1]) == 2, "both sides to be kept")

    talk(story)
    data, items, _ = row(ledger, name)
    assert set(data) == {"type", "session"}
    assert data["type"] == "session.update"
    assert not {"id", "object", "expires_at", "client_secret", "model"} & set(data["session"])
    assert data["session"]["audio"]["input"]["noise_reduction"] is None, "null: it is off"
    assert [(i["role"], i["content"][0]["text"]) for i in items] == [
        ("user", "Is it raining?"),
        ("assistant", "You said: Is it raining?"),
    ]


def test_a_known_session_is_replayed_and_its_answers_are_not_kept_again(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    name = new_name()

    async def first() -> None:
        async with voice(at, key, name) as one:
            await one.configure(instructions="You are Ada.", tools=[TOOL])
            await one.ask("Please call weather now")
            call = next(e for e in one.got if e["type"] == "response.output_item.done")["item"]
            result = {
                "type": "function_call_output",
                "call_id": call["call_id"],
                "output": "sunny",
            }
            await one.say("conversation.item.create", item=result)
            await one.until("conversation.item.done")
            await holds(lambda: len(row(ledger, name)[1]) == 3, "the items to be kept")

    async def second() -> None:
        before = row(ledger, name)
        async with voice(at, key, name) as one:
            created = await one.hear()
            assert created["type"] == "session.created"
            effective = await one.until(
                "session.updated", lambda e: bool(e["session"]["tools"])
            )
            assert effective["session"]["instructions"] == "You are Ada."
            await holds(lambda: len(there.links[-1].items) == 3, "the items to be there")
            received = there.links[-1].received
            assert there.links[-1].kinds() == [
                *("session.update", "session.update"),
                *["conversation.item.create"] * 3,
            ]
            assert "tools" not in received[0]["session"], "the configuration comes first"
            assert received[1]["session"]["tools"][0]["name"] == "weather"
            assert [e["item"] for e in received[2:]] == before[1]
            await one.say(
                "session.update", session={"type": "realtime", "instructions": "New."}
            )
            await one.until("session.updated", lambda e: e["session"]["instructions"] == "New.")
            await kept(ledger, name, "New.")
            assert row(ledger, name)[0]["session"]["tools"][0]["name"] == "weather"

    async def only_looks() -> None:
        before = row(ledger, name)
        async with voice(at, key, name) as one:
            await one.until("session.updated", lambda e: bool(e["session"]["tools"]))
            other = new_name()
            async with voice(at, key, other) as beside:  # the writer has been round since
                await beside.configure(instructions="x")
                await kept(ledger, other, "x")
        assert row(ledger, name) == before, "what was replayed is not kept again"

    talk(first)
    talk(second)
    talk(only_looks)


def test_a_new_user_without_any_session_is_let_in(at: Gateway, url: str, there: Provider):
    """The seed's "invalid key": its look-up of a key asked for a session as well."""
    fresh = key_of(url, new_name("new-user"))

    async def story() -> None:
        for session in (None, new_name()):
            async with voice(at, fresh, session) as one:
                assert (await one.hear())["type"] == "session.created"
                await one.configure(instructions="Hello.")

    talk(story)


def test_a_session_without_a_name_has_the_providers_and_can_be_gone_on_with(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    async def story() -> None:
        async with voice(at, key) as one:
            name = (await one.hear())["session"]["id"]
            await one.configure(instructions="Remember me.")
            await kept(ledger, name, "Remember me.")
        async with voice(at, key, name) as again:
            told = await again.until("session.updated")
            assert told["session"]["instructions"] == "Remember me."

    talk(story)


def test_another_accounts_session_counts_as_not_there(
    at: Gateway, key: str, url: str, there: Provider, ledger: Connection
):
    name, other = new_name(), new_name("rival")
    rival = key_of(url, other)

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.configure(instructions="A secret of acme.")
            await kept(ledger, name, "A secret of acme.")
        async with voice(at, rival, name) as two:
            await two.hear()
            await two.configure(instructions="Mine.")
            assert "secret" not in json.dumps(there.links[-1].received)
            await holds(lambda: instructions(ledger, name, other) == "Mine.", "its own row")
        assert instructions(ledger, name) == "A secret of acme."

    talk(story)


@pytest.mark.parametrize(
    ("data", "warned"),
    [
        (None, False),
        ({}, True),
        ({"type": "session.update"}, True),
        ({"type": "session.update", "session": {}}, True),
        ({"type": "session.update", "session": {"type": "realtime", "tools": 7}}, True),
        ({"type": "session.update", "session": {"type": "realtime"}}, False),
    ],
)
def test_a_row_without_a_usable_configuration_hurts_nobody(
    at: Gateway, key: str, there: Provider, ledger: Connection, data: Any, warned: bool
):
    name = new_name()
    ledger.execute(
        "insert into sessions (account_id, session_id, data, items) values ('acme', %s, %s, %s)",
        (name, None if data is None else Jsonb(data), Jsonb([{"id": "x"}, 7])),
    )

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.until("session.created")
            assert ("baton.warning" in one.kinds()) is warned
            await one.configure(instructions="Anew.")
            await kept(ledger, name, "Anew.")

    talk(story)


@pytest.mark.parametrize("what", ["none", "unknown", "revoked", "ended", "of another scope"])
def test_a_key_that_does_not_count_is_closed_with_4401_and_nothing_is_opened(
    at: Gateway, url: str, there: Provider, ledger: Connection, what: str
):
    scope = "jobs" if what == "of another scope" else "voice"
    given = (
        None if what == "none" else "bk_x" if what == "unknown" else key_of(url, "acme", scope)
    )
    if what == "revoked":
        ledger.execute(
            "update api_keys set revoked_at = now() where id = (select max(id) from api_keys)"
        )
    if what == "ended":
        ledger.execute(
            "update api_keys set expires_at = now() where id = (select max(id) from api_keys)"
        )

    async def story() -> None:
        code, reason = await closed_with(at, f"/v1/realtime?model={MODEL}", given)
        assert (code, reason[-1:]) == (4401, ".")
        assert reason.startswith("This key ended at ") is (what == "ended")

    talk(story)
    assert there.asked == 0


@pytest.mark.parametrize(
    "path", ["/v1/realtime", "/v1/realtime?model=", "/v1/realtime?model=m&session=%00"]
)
def test_what_names_no_model_or_no_session_is_closed_with_4400(
    at: Gateway, key: str, there: Provider, path: str
):
    async def story() -> None:
        assert (await closed_with(at, path, key))[0] == 4400

    talk(story)
    assert there.asked == 0


def test_what_nobody_knows_passes_as_it_is_and_the_providers_errors_come_back(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    name = new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.hear()
            odd = '{ "type" : "conversation.item.dance",  "ü": 1.50 , "event_id":"mine" }'
            await one.connection.send_raw(odd)
            refusal = await one.until("error")
            assert refusal["error"]["event_id"] == "mine"
            assert there.links[-1].received[-1] == json.loads(odd)
            await one.say(
                "session.update", event_id="u1", session={"type": "realtime", "mood": "gay"}
            )
            error = (await one.until("error"))["error"]
            assert (error["code"], error["param"], error["event_id"]) == (
                "unknown_parameter", "session.mood", "u1")  # fmt: skip
            assert error["message"] == "Unknown parameter: 'session.mood'."

    talk(story)
    assert row(ledger, name)[0] is None, "nothing was accepted"


async def _refused(at: Gateway, key: str, session: object) -> Event:
    async with voice(at, key) as one:
        await one.hear()
        await one.say("session.update", event_id="e7", session=session)
        return (await one.until("error"))["error"]


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"instructions": "x"}, "missing_required_parameter", "session.type"),
        ({"type": "realtime", "instructions": 7}, "invalid_type", "session.instructions"),
        (
            {"type": "realtime", "output_modalities": ["audio", "text"]},
            "invalid_value",
            "session.output_modalities",
        ),
        (
            {"type": "realtime", "audio": {"input": {"format": {"type": "mp3"}}}},
            "invalid_value",
            "session.audio.input.format.type",
        ),
        (
            {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "ears"}}}},
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (None, "missing_required_parameter", "session"),
        ([], "invalid_type", "session"),
        (
            {"type": "realtime", "tools": [{"type": "function"}]},
            "missing_required_parameter",
            "session.tools[0].name",
        ),
        (
            {"voice": "ash", "type": "realtime", "audio": {"output": {"voice": "marin"}}},
            "unknown_parameter",
            "session.voice",
        ),
        (
            {"modalities": ["video"], "type": "realtime"},
            "unknown_parameter",
            "session.modalities",
        ),
    ],
)
def test_a_misshapen_configuration_is_refused_with_code_message_and_parameter(
    at: Gateway, key: str, there: Provider, session: object, code: str, param: str
):
    async def story() -> None:
        error = await _refused(at, key, session)
        assert (error["code"], error["param"], error["event_id"]) == (code, param, "e7")
        assert error["type"] == "invalid_request_error"
        assert error["message"].endswith(".")
        assert not re.search("should be List|instance of", error["message"]), (
            "no pydantic words"
        )

    talk(story)
    assert "session.update" not in there.links[-1].kinds()


def test_places_of_the_beta_are_mended_with_a_warning(at: Gateway, key: str, there: Provider):
    beta = {
        "modalities": ["text", "audio"],
        "voice": "ash",
        "turn_detection": None,
        "input_audio_format": "pcm16",
        "instructions": "Be brief.",
    }

    async def story() -> None:
        async with voice(at, key) as one:
            await one.say("session.update", session=beta, event_id="b1")
            session = (await one.until("session.updated"))["session"]
            assert session["output_modalities"] == ["audio"]
            assert session["audio"]["output"]["voice"] == "ash"
            assert session["audio"]["input"]["turn_detection"] is None
            warned = {e["param"]: e for e in one.got if e["type"] == "baton.warning"}
            assert {"session.modalities", "session.voice", "session.turn_detection"} <= set(
                warned
            )
            assert warned["session.voice"]["code"] == "beta_parameter"

    talk(story)


def test_a_client_that_leaves_closes_its_link_and_no_other_is_opened(
    at: Gateway, key: str, there: Provider
):
    async def story() -> None:
        async with voice(at, key) as one:
            await one.configure(instructions="x")
            assert len(there.open_links) == 1
        await holds(lambda: not there.open_links, "the link to be closed")
        await asyncio.sleep(0.5)  # the longest pause before a second link
        assert there.asked == 1

    talk(story)


def test_what_postgres_cannot_hold_is_kept_without_it(
    at: Gateway, key: str, there: Provider, ledger: Connection
):
    name = new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.configure(instructions="a\x00b")
            await holds(lambda: row(ledger, name)[0], "the session to be kept")

    talk(story)


def test_while_postgres_does_not_take_it_the_stream_goes_on_and_it_is_kept_later(
    at: Gateway, key: str, there: Provider, ledger: Connection, url: str
):
    name = new_name()

    async def story() -> None:
        async with voice(at, key, name) as one:
            await one.hear()
            with psycopg.connect(url) as beside:
                beside.execute("lock table sessions in access exclusive mode")
                await one.configure(instructions="While it is held.")
                assert (await one.ask("Are you there?"))["status"] == "completed"
            await kept(ledger, name, "While it is held.")
            await holds(lambda: len(row(ledger, name)[1]) == 2, "the items to be kept")

    talk(story)


def test_nothing_is_compressed_whatever_a_client_offers(at: Gateway, key: str, there: Provider):
    """The official client offers it. Of sound it would cost more than all that the relay does, and of
    text a small frame may become a thousand times as long before anybody is asked who sends it."""

    async def story() -> None:
        base, headers = at.url.replace("http", "ws"), {"Authorization": f"Bearer {key}"}
        address = f"{base}/v1/realtime?model={MODEL}"
        async with (
            connect(address, additional_headers=headers, proxy=None) as speaks,
            connect(f"{base}/v1/live", proxy=None) as reads,
        ):
            assert speaks.protocol.extensions == reads.protocol.extensions == []

    talk(story)
