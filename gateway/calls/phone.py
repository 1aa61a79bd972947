"""A telephone as a client of a voice session: frames of Media Streams on one side, events on the other."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.calls import twilio
from gateway.voice import events
from gateway.voice.ends import Gone
from gateway.voice.events import Event, part, said

CLOCK = re.compile(r"[0-9]{1,15}")
MOST = 500  # events that wait for the session: ten seconds of audio
Note = tuple[str, dict[str, Any]]  # an event for the page: its type and its body


class Phone:
    """`send_frame` is the way to Twilio; what is for the page is put into `notes`."""

    def __init__(self, stream: str, send_frame: Callable[[str], Awaitable[None]]) -> None:
        self.stream, self._send_frame = stream, send_frame
        self.notes: asyncio.Queue[Note] = asyncio.Queue()
        self.ready = asyncio.Event()  # the session is configured
        self._said: asyncio.Queue[str | None] = asyncio.Queue(MOST)
        self._clock = 0  # milliseconds of the call, by Twilio
        self._item, self._began = "", 0  # what is played, and since when

    # Of the telephone.

    def configure(self, update: Event) -> None:
        """The session is to have this configuration."""
        self._put(events.text_of(update))

    def hear(self, media: Event) -> None:
        """Audio from the telephone, in base64."""
        stamp = media.get("timestamp")
        if isinstance(stamp, str) and CLOCK.fullmatch(stamp):
            self._clock = int(stamp)
        if self.ready.is_set() and said(media, "track") != "outbound":
            append = {"type": "input_audio_buffer.append", "audio": said(media, "payload")}
            self._put(events.text_of(append))

    def played(self, item: str) -> None:
        """All of the item was heard: whoever speaks now interrupts nothing."""
        if item == self._item:
            self._item = ""

    def hang_up(self) -> None:
        """It has gone."""
        while self._said.full():
            self._said.get_nowait()
        self._said.put_nowait(None)

    def _put(self, text: str) -> None:
        if self._said.full():  # the provider is away: what was said then is past
            self._said.get_nowait()
        self._said.put_nowait(text)

    # Of the session: see gateway.voice.ends.Client.

    async def receive(self) -> str:
        """What it says next. Raises Gone."""
        text = await self._said.get()
        if text is None:
            raise Gone
        return text

    async def send(self, text: str) -> None:
        """What the provider says: audio to the telephone, the rest to the page."""
        event = events.read(text)
        if event is None:
            return
        match event["type"]:
            case "response.output_audio.delta":
                await self._play(event)
            case "response.output_audio.done":
                await self._frame("mark", mark={"name": said(event, "item_id")})
            case "input_audio_buffer.speech_started":
                await self._interrupt()
            case "session.updated":
                self.ready.set()
            case "conversation.item.input_audio_transcription.completed":
                self._note("call.transcript", role="user", text=said(event, "transcript"))
            case "response.output_audio_transcript.done":
                self._note("call.transcript", role="assistant", text=said(event, "transcript"))
            case "baton.provider":
                self._note("call.log", level="warning", text=f"provider {said(event, 'state')}")
            case "error":
                inner = part(event, "error")
                self._note("call.log", level="error", code=said(inner, "code"),
                           text=said(inner, "message"))  # fmt: skip
            case _:
                pass

    async def _play(self, event: Event) -> None:
        if said(event, "item_id") != self._item:
            self._item, self._began = said(event, "item_id"), self._clock
        await self._frame("media", media={"payload": said(event, "delta")})

    async def _interrupt(self) -> None:
        """The caller speaks: stop what is played, and tell the provider how much was heard of it."""
        await self._frame("clear")
        if self._item:
            truncate = {"type": "conversation.item.truncate", "item_id": self._item,
                        "content_index": 0, "audio_end_ms": max(self._clock - self._began, 0)}  # fmt: skip
            self._put(events.text_of(truncate))
            self._item = ""

    async def _frame(self, kind: str, **more: Any) -> None:
        await self._send_frame(twilio.frame(kind, self.stream, **more))

    def _note(self, kind: str, **body: Any) -> None:
        self.notes.put_nowait((kind, body))
