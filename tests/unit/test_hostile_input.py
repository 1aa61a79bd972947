"""What comes from outside is read or refused; whatever it is, nothing else is raised.

A few dozen inputs of each kind in the short run. The long one has a thousand (`make faults`), each
run other ones. What has once broken a reader stands there as an example.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from config import hosts
from egress.answers import Refused
from egress.meter import Meter
from egress.wire import Wire
from gateway.calls.phone import Phone
from gateway.http import events as http_events
from gateway.live import socket
from gateway.live.socket import Closed
from gateway.voice import events, shape
from worker.broker import consumer
from worker.broker.refused_messages import RefusedMessage
from worker.failures.errors import JobError
from worker.failures.failed import Failed
from worker.job import delivery
from worker.session import recordings
from worker.workspace import diff, git, survey

SHORT, LONG = 25, 1000
SESSION = "7c4ffbd6-0000-4000-8000-000000000001"
DEEP = "[" * 100_000
TEXT = st.text(st.characters(exclude_categories=()), max_size=30)  # NUL, halves of pairs
SIMPLE = (
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT
    | st.sampled_from(["²", "9" * 5000, 10**400, SESSION, "", "-1"])
)  # fmt: skip
NAMES = st.sampled_from(
    [
        *("t", "v", "project", "ticket", "tab", "epoch", "last", "id", "kind", "text", "type"),
        *("uuid", "parentUuid", "sessionId", "timestamp", "message", "usage", "model", "role"),
        *("subtype", "totalCostUSD", "promptId", "version", "isSidechain", "content", "event"),
        *(
            "project_id",
            "user_id",
            "prompt",
            "key",
            "kind",
            "job_id",
            "audio",
            "input",
            "tools",
        ),
        *("input_tokens", "output_tokens", "cache_read_input_tokens", "timestamp", "payload"),
        *(
            "turn_detection",
            "format",
            "output",
            "voice",
            "track",
            "session",
            "item_id",
            "delta",
        ),
    ]
)
KINDS = st.sampled_from(
    ["user", "assistant", "cost-state", "system", "hello", "realtime", "media"]
)
VALUES = st.recursive(
    SIMPLE | KINDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXT, inner, max_size=5)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=6)
Deed = Callable[[Any], None]


def fuzzed(strategy: st.SearchStrategy[Any], *known: Any) -> Callable[[Deed], Deed]:
    """Marks what is to be done with each input; `known` are those that broke it once."""

    def mark(deed: Deed) -> Deed:
        held: Any = given(strategy)(deed)
        for each in known:
            held = example(each)(held)
        return held

    return mark


def with_(begun: dict[str, Any], told: Any) -> Any:
    """What was told, as what goes on from this: it gets further than by chance."""
    return {**begun, **cast(dict[str, Any], told)} if isinstance(told, dict) else begun


@fuzzed(st.tuples(st.lists(VALUES, max_size=8), OBJECTS))
def plain_message(told: tuple[list[Any], dict[str, Any]]) -> None:
    """A plain producer's message: its arguments, by place and by name."""
    places, names = told
    consumer._places(places)  # pyright: ignore[reportPrivateUsage]
    consumer._names(names)  # pyright: ignore[reportPrivateUsage]
    try:
        asked = delivery.named(tuple(places), names)
    except RefusedMessage:
        return
    fields = {delivery.FIELDS.get(name, name): value for name, value in asked.items()}
    for ask in delivery.ASKS.values():
        with suppress(ValidationError):
            ask(**fields)


@fuzzed(
    st.lists(OBJECTS | VALUES, max_size=6),
    [{"type": "user", "message": {}}],
    [{"type": "assistant", "uuid": "a", "message": "text"}],
)
def transcript(lines: list[Any]) -> None:
    """A session's file: each line JSON, or whatever else."""
    with TemporaryDirectory() as place:
        file = Path(place) / f"{SESSION}.jsonl"
        file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        with suppress(Failed):
            recordings.read(file)


@fuzzed(st.binary(max_size=300), b"{" * 100_000, DEEP.encode(), b"\xff\xfe")
def transcript_bytes(data: bytes) -> None:
    with TemporaryDirectory() as place:
        file = Path(place) / f"{SESSION}.jsonl"
        file.write_bytes(data)
        with suppress(Failed):
            recordings.read(file)


@fuzzed(
    st.lists(OBJECTS.map(json.dumps) | TEXT, max_size=4),
    ['{"usage": {"input_tokens": 1e999}}'],
    ['{"usage": {"input_tokens": Infinity}}', DEEP],
    [f'{{"usage": {{}}, "x": {DEEP}'],
)
def model_answer(parts: list[str]) -> None:
    """What the model answers, whole and as events, cut anywhere."""
    for stream in (False, True):
        meter = Meter()
        meter.stream = stream
        for part in parts:
            meter.read(f'data: {part} "usage"\n'.encode(errors="replace"))
            meter.read(part.encode(errors="replace"))
        assert meter.usd() >= 0


REQUEST = b"POST /v1/messages HTTP/1.1\r\nhost: x\r\n"


@fuzzed(
    st.lists(
        st.binary(max_size=60)
        | st.sampled_from([REQUEST, b"\r\n", b"content-length: 5\r\n", b"GET * HTTP/1.0\r\n",
                           b"transfer-encoding: chunked\r\n", b"expect: 100-continue\r\n",
                           b"CONNECT a:1 HTTP/1.1\r\n", b"0\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\n"]),
        max_size=10,
    )
)  # fmt: skip
def proxys_request(parts: list[bytes]) -> None:
    """Bytes of an agent's to the egress proxy, in pieces."""

    async def read() -> None:
        reader = asyncio.StreamReader()
        wire = Wire(reader, cast(asyncio.StreamWriter, Written()))
        for part in parts:
            reader.feed_data(part)
        reader.feed_eof()
        try:
            while await wire.request():
                await wire.body()
                await wire.answer(h11.Response(status_code=200, headers=[]), b"")
        except (h11.RemoteProtocolError, Refused):
            pass

    asyncio.run(read())


class Written:
    """The other end of a connection that nobody reads."""

    def write(self, data: bytes) -> None:
        assert data

    async def drain(self) -> None:
        pass


@fuzzed(OBJECTS | VALUES, {"t": "hello", "v": 1, "project": "p", "tab": "\ud800"})
def hello(told: Any) -> None:
    """A browser's first frame."""
    begun = {"t": "hello", "v": socket.VERSION, "project": "p"}
    for frame in (told, with_(begun, told)):
        try:
            found = socket._hello_of(frame)  # pyright: ignore[reportPrivateUsage]
        except Closed:
            continue
        for text in (found.project, found.ticket, found.tab, found.epoch):
            assert text is None or (text.encode() is not None and "\0" not in text)
        assert 0 <= found.last < 2**63


@fuzzed(TEXT, "9" * 5000, "²", "٣")
def cursor(text: str) -> None:
    """What a long poll gives back of the answer before."""
    assert http_events._cursor(text).isdecimal()  # pyright: ignore[reportPrivateUsage]


@fuzzed(OBJECTS | VALUES)
def voice_session(told: Any) -> None:
    """A configuration of a voice session, and one that was kept."""
    tried: list[object] = [told, with_({"type": "realtime"}, told)]
    for each in tried:
        for reads in (shape.checked, shape.stored):
            with suppress(shape.Misshapen):
                reads(each)


@fuzzed(
    TEXT | VALUES.map(json.dumps),
    DEEP,
    '{"type": "error", "x": "\\ud800"}',
    '{"type": "response.done", "response": {"usage": 1}}',
)
def voice_event(text: str) -> None:
    """An event of the provider's, or of a client's."""
    events.is_audio(text)
    events.delta(text)
    events.item_of(text)
    if event := events.read(text):
        assert events.tokens(event) >= 0
        events.failure(event)
        events.text_of(event).encode()


@fuzzed(OBJECTS, {"timestamp": "²"}, {"timestamp": "9" * 5000})
def telephone(media: dict[str, Any]) -> None:
    """A frame of a telephone's, and the same as the provider's event."""

    async def hear() -> None:
        async def send(text: str) -> None:
            text.encode()

        phone = Phone("MZ1", send)
        phone.ready.set()
        phone.hear(media)
        for kind in (
            "response.output_audio.delta",
            "input_audio_buffer.speech_started",
            "error",
        ):
            await phone.send(json.dumps({**media, "type": kind}))

    asyncio.run(hear())


@fuzzed(TEXT | st.lists(st.sampled_from([*"[]:.%x0189af-", "127", "::", "a.b"])).map("".join))
def host(text: str) -> None:
    """A host that an agent, or an operator, names; what is read is read again the same."""
    try:
        found = hosts.read(text, port=443)
    except hosts.BadHost:
        return
    assert hosts.read(str(found)) == found


@fuzzed(TEXT)
def gits_words(text: str) -> None:
    """What git says, and the names that it lists."""
    assert isinstance(git.away(text), JobError)
    assert isinstance(git.not_kept(text), JobError)
    git.unsaid_of(("git", f"https://{text}", text))
    survey.refused(text)
    name = text.encode(errors="surrogatepass").decode(errors="surrogateescape")
    diff._text(name).encode()  # pyright: ignore[reportPrivateUsage]
    diff._count(text)  # pyright: ignore[reportPrivateUsage]


READERS = [
    *(plain_message, transcript, transcript_bytes, model_answer, proxys_request, hello, cursor),
    *(voice_session, voice_event, telephone, host, gits_words),
]


def fuzz(reader: Deed, many: int) -> None:
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    held = settings(max_examples=many, deadline=None, suppress_health_check=slow, database=None)
    cast(Any, held(reader))()


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_what_comes_from_outside_is_read_or_refused(reader: Deed):
    fuzz(reader, SHORT)


@pytest.mark.long
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_so_are_a_thousand_of_each(reader: Deed):
    fuzz(reader, LONG)
