"""One connection: events come, and what the provider would say to them goes out, in its order."""

import asyncio
import base64
import json
from contextlib import suppress
from typing import Any, Protocol, cast
from uuid import uuid4

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from dev.standin.realtime import answer
from dev.standin.realtime.cues import Cues
from dev.standin.realtime.hearing import Hearing
from dev.standin.realtime.shape import Wrong, check, defaults, merged
from dev.standin.realtime.speech import tell

JSON = dict[str, Any]


class Server(Protocol):
    """What a link knows of the server: what goes wrong, how fast it speaks, what that uses."""

    cues: Cues
    pace: float  # seconds between two pieces of an answer
    used: int | None  # tokens of each response; None: by its words


class Closed(Exception):
    """A cue has ended the link."""


class Link:
    """While it is open. `received` is all that came, the oldest first."""

    def __init__(self, ws: ServerConnection, server: Server, model: str) -> None:
        self.ws, self.server = ws, server
        self.received: list[JSON] = []
        self.open = True
        self.items: list[JSON] = []
        self.spoke = False
        self._hearing, self._buffer = Hearing(), 0
        self._answering: asyncio.Task[None] | None = None
        self.session = defaults(model)

    async def serve(self) -> None:
        """Until it is closed."""
        try:
            await self.cue("connect")
            await self.say("session.created", session=self.session)
            await self.cue("created")
            async for text in self.ws:
                event: JSON = json.loads(text)
                self.received.append(event)
                await self._take(event)
        except Closed:
            pass
        finally:
            self.open = False
            if self._answering:
                self._answering.cancel()

    def kinds(self) -> list[str]:
        """The types of what came."""
        return [str(event.get("type")) for event in self.received]

    async def say(self, kind: str, **more: Any) -> None:
        """Send an event."""
        event = {"type": kind, "event_id": f"event_{uuid4().hex[:21]}", **more}
        await self.ws.send(json.dumps(event))

    @property
    def pace(self) -> float:
        """Seconds between two pieces of an answer."""
        return self.server.pace

    async def refuse(self, code: str, message: str, param: str | None, event: JSON) -> None:
        """An `error` about an event."""
        await self.say("error", error={
            "type": "invalid_request_error", "code": code, "message": message,
            "param": param, "event_id": event.get("event_id")})  # fmt: skip

    async def _take(self, event: JSON) -> None:
        kind = str(event.get("type"))
        if await self.cue(kind, event):
            return
        act = getattr(self, "_on_" + kind.replace(".", "_"), None)
        if act is None:
            await self.refuse("invalid_value", f"Invalid value: '{kind}'.", "type", event)
            return
        try:
            await act(event)
        except Wrong as exc:
            await self.refuse(exc.code, exc.message, exc.param, event)

    async def cue(self, moment: str, event: JSON | None = None) -> bool:
        """Let go wrong what is to; whether the event is answered with that. Raises Closed."""
        answered = False
        for cue in self.server.cues.at(moment):
            match cue.kind:
                case "close":
                    await self.ws.close(int(cue.code))
                    raise Closed
                case "cut":
                    self.ws.transport.abort()
                    raise Closed
                case "error":
                    await self.refuse(
                        str(cue.code), cue.message, cue.param or None, event or {}
                    )
                    if cue.close is not None:
                        await self.ws.close(cue.close)
                        raise Closed
                    answered = True
                case "refuse":
                    await self.refuse("invalid_value", cue.message, cue.param, event or {})
                    answered = True
                case "slow":
                    await asyncio.sleep(cue.seconds)
                case _:
                    answered = True
        return answered

    async def _on_session_update(self, event: JSON) -> None:
        told = check(event.get("session"))
        voice = cast(JSON, cast(JSON, told.get("audio") or {}).get("output") or {}).get("voice")
        if self.spoke and voice not in (None, self.session["audio"]["output"]["voice"]):
            raise Wrong("cannot_update_voice", "Cannot update a conversation's voice if assistant"
                        " audio is present.", "session.audio.output.voice")  # fmt: skip
        self.session = merged(self.session, told)
        await self.say("session.updated", session=self.session)

    async def _on_conversation_item_create(self, event: JSON) -> None:
        item = dict(cast(JSON, event.get("item") or {}))
        if not item.get("type"):
            raise Wrong("missing_required_parameter",
                        "Missing required parameter: 'item.type'.", "item.type")  # fmt: skip
        for unknown in set(item) - {"id", "type", "role", "content", "object", "status",
                                    "name", "call_id", "arguments", "output"}:  # fmt: skip
            raise Wrong(
                "unknown_parameter", f"Unknown parameter: 'item.{unknown}'.", f"item.{unknown}"
            )
        calls = {one.get("call_id") for one in self.items if one["type"] == "function_call"}
        if item["type"] == "function_call_output" and item.get("call_id") not in calls:
            raise Wrong(
                "invalid_tool_call_id",
                "Tool call ID not found in conversation.",
                "item.call_id",
            )
        await self.add(item)

    async def add(self, item: JSON) -> JSON:
        """Put it at the end of the conversation, complete."""
        before = self.items[-1]["id"] if self.items else None
        item = {"id": f"item_{uuid4().hex[:21]}", "object": "realtime.item",
                "status": "completed", **item}  # fmt: skip
        self.items.append(item)
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self.say(kind, previous_item_id=before, item=item)
        return item

    async def _on_conversation_item_delete(self, event: JSON) -> None:
        name = self._known(event)
        self.items = [item for item in self.items if item["id"] != name]
        await self.say("conversation.item.deleted", item_id=name)

    async def _on_conversation_item_retrieve(self, event: JSON) -> None:
        name = self._known(event)
        item = next(one for one in self.items if one["id"] == name)
        await self.say("conversation.item.retrieved", item=item)

    async def _on_conversation_item_truncate(self, event: JSON) -> None:
        more = {name: event.get(name) for name in ("content_index", "audio_end_ms")}
        await self.say("conversation.item.truncated", item_id=self._known(event), **more)

    def _known(self, event: JSON) -> str:
        name = str(event.get("item_id"))
        if name not in {item["id"] for item in self.items}:
            raise Wrong("item_not_found", f"Item '{name}' does not exist.", "item_id")
        return name

    async def _on_input_audio_buffer_append(self, event: JSON) -> None:
        try:
            audio = base64.b64decode(str(event.get("audio")), validate=True)
        except ValueError:  # also for what is not ASCII
            raise Wrong("invalid_value", "Invalid 'audio': expected base64.", "audio") from None
        self._buffer += len(audio)
        heard: JSON = self.session["audio"]["input"]
        if not (vad := heard["turn_detection"]):
            return
        kind, silence = str(heard["format"]["type"]), int(vad.get("silence_duration_ms") or 500)
        match self._hearing.hear(audio, kind, silence):
            case "started":
                await self.say(
                    "input_audio_buffer.speech_started", audio_start_ms=int(self._hearing.ms)
                )
                if vad.get("interrupt_response", True):
                    await self.stop("turn_detected")
            case "stopped":
                await self.say(
                    "input_audio_buffer.speech_stopped", audio_end_ms=int(self._hearing.ms)
                )
                await self._commit()
                if vad.get("create_response", True):
                    await self._respond({})
            case None:
                pass

    async def _on_input_audio_buffer_commit(self, _: JSON) -> None:
        if not self._buffer:
            raise Wrong("input_audio_buffer_commit_empty", "Error committing input audio buffer: the"
                        " buffer is too small.", "")  # fmt: skip
        await self._commit()

    async def _on_input_audio_buffer_clear(self, _: JSON) -> None:
        self._buffer = 0
        await self.say("input_audio_buffer.cleared")

    async def _commit(self) -> None:
        heard = f"{self._buffer} bytes of speech"
        self._buffer = 0
        name = f"item_{uuid4().hex[:21]}"
        await self.say("input_audio_buffer.committed", item_id=name, previous_item_id=None)
        part: JSON = {"type": "input_audio", "transcript": None}
        await self.add({"id": name, "type": "message", "role": "user", "content": [part]})
        if self.session["audio"]["input"]["transcription"]:
            part["transcript"] = heard
            await self.say("conversation.item.input_audio_transcription.completed", item_id=name,
                           content_index=0, transcript=heard)  # fmt: skip

    async def _on_response_create(self, event: JSON) -> None:
        await self._respond(cast(JSON, event.get("response") or {}), event)

    async def _on_response_cancel(self, _: JSON) -> None:
        if not await self.stop("client_cancelled"):
            raise Wrong(
                "response_cancel_not_active",
                "Cancellation failed: no active response found.",
                "",
            )

    async def _respond(self, wanted: JSON, event: JSON | None = None) -> None:
        if self._answering and not self._answering.done():
            await self.refuse("conversation_already_has_active_response",
                              "Conversation already has an active response.", None, event or {})  # fmt: skip
            return
        self._answering = asyncio.create_task(self._answer(wanted))

    async def stop(self, reason: str) -> bool:
        """Stop the answer that is under way, if one is."""
        task = self._answering
        if task is None or task.done():
            return False
        task.cancel(reason)
        await asyncio.gather(task, return_exceptions=True)
        return True

    async def _answer(self, wanted: JSON) -> None:
        with suppress(Closed, ConnectionClosed):
            await self._tell(wanted)

    async def _tell(self, wanted: JSON) -> None:
        response: JSON = {"id": f"resp_{uuid4().hex[:21]}", "object": "realtime.response",
                          "status": "in_progress", "output": [], "usage": None}  # fmt: skip
        try:
            await self.say("response.created", response=response)
            await self.cue("answer")
            text, item = await tell(self, response["id"], wanted)
            response |= {"status": "completed", "output": [item],
                         "usage": answer.usage(self.items[:-1], text, self.server.used)}  # fmt: skip
        except asyncio.CancelledError as exc:
            reason = str(exc.args[0]) if exc.args else ""
            if not reason:
                raise
            response |= {"status": "cancelled", "status_details": {"type": "cancelled", "reason": reason},
                         "usage": answer.usage(self.items, "", self.server.used)}  # fmt: skip
        await self.say("response.done", response=response)
