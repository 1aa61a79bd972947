"""Whether the provider is in the middle of something: responses under way, a user who speaks.

Who decides by hand when a turn ends (no turn detection) speaks from the first audio to `commit` or `clear`.
"""

import asyncio
from dataclasses import dataclass, field

from gateway.voice import events
from gateway.voice.events import Event, part, said

COMMIT = "input_audio_buffer.commit"
HEARD = "conversation.item.input_audio_transcription.completed"  # all that transcribing answers


@dataclass(slots=True)
class Turns:
    """Of one session. `tries` counts links since a response, or a transcript, was heard."""

    responses: set[str] = field(default_factory=set[str])
    speaking: bool = False
    held: bool = False  # audio is at the provider that the client has not committed
    tries: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)  # no response is under way

    @property
    def busy(self) -> bool:
        """Whether somebody would be interrupted."""
        return bool(self.responses) or self.speaking or self.held

    def say(self, kind: str) -> None:
        """The client says an event of this type."""
        if kind in (COMMIT, "input_audio_buffer.clear"):
            self.held = False

    def watch(self, event: Event) -> None:
        """The provider says this."""
        response = said(part(event, "response"), "id")
        match event["type"]:
            case "response.created":
                self.responses.add(response)
                self.idle.clear()
            case "response.done":
                self.responses.discard(response)
                if not self.responses:
                    self.idle.set()
            case "input_audio_buffer.speech_started":
                self.speaking = True
            case "input_audio_buffer.speech_stopped":
                self.speaking = False
            case _:
                pass
        if event["type"] == HEARD or (
            event["type"].startswith("response.") and not events.failure(event)
        ):
            self.tries = 0

    def cut_off(self) -> list[Event]:
        """The link has gone: what the client is told of what went with it."""
        told = [event for one in sorted(self.responses) for event in events.cancelled(one)]
        self.responses.clear()
        self.speaking = self.held = False
        self.idle.set()
        return told
