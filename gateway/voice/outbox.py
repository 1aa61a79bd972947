"""What the client has said and the provider has not confirmed yet.

An entry waits here while there is no link, and until its answer has come. A new link is sent all of
them, after the replay: what the old one took with it is not lost, and state is set the same twice over.
"""

from collections import deque
from dataclasses import dataclass, field

from gateway.voice.events import Event, part, said

MOST = 256  # entries
LARGEST = 4 * 2**20  # characters of all of them
# By which event the provider confirms what; it answers each kind in order.
CONFIRMED = {
    "session.updated": "session.update",
    "conversation.item.added": "conversation.item.create",
    "conversation.item.created": "conversation.item.create",
    "conversation.item.deleted": "conversation.item.delete",
    "response.created": "response.create",
}
KINDS = frozenset(CONFIRMED.values())
PAST = ("response.cancel", "input_audio_buffer.", "output_audio_buffer.")  # mean the old link


@dataclass(eq=False, frozen=True, slots=True)
class Entry:
    """One event of the client's, as it is sent."""

    kind: str
    text: str
    event_id: str
    item: str  # whose, where it creates or deletes one


@dataclass(slots=True)
class Outbox:
    """The oldest first."""

    entries: deque[Entry] = field(default_factory=deque[Entry])
    size: int = 0

    def put(self, event: Event, text: str) -> Entry | None:
        """Keep it until it is confirmed; None, with nothing kept, where no more fits."""
        if len(self.entries) >= MOST or self.size + len(text) > LARGEST:
            return None
        item = said(part(event, "item"), "id") or said(event, "item_id")
        entry = Entry(event["type"], text, said(event, "event_id"), item)
        self.entries.append(entry)
        self.size += len(text)
        return entry

    def confirm(self, event: Event) -> None:
        """The provider has said this: an entry that it answers is done."""
        if event["type"] == "error":
            about = said(part(event, "error"), "event_id")
            self._drop(next((e for e in self.entries if about and e.event_id == about), None))
        elif kind := CONFIRMED.get(event["type"]):
            item = said(part(event, "item"), "id") or said(event, "item_id")
            same = [entry for entry in self.entries if entry.kind == kind]
            named = [entry for entry in same if entry.item == item]
            open_ones = named or [entry for entry in same if not entry.item]
            if open_ones:
                self._drop(open_ones[0])

    def sent(self, entry: Entry) -> None:
        """It is on its way; nothing will confirm one of its kind."""
        if entry.kind not in KINDS:
            self._drop(entry)

    def _drop(self, entry: Entry | None) -> None:
        if entry is not None and entry in self.entries:
            self.entries.remove(entry)
            self.size -= len(entry.text)
