"""The items of a conversation as they end, each in the form in which it can be created again.

Audio is not kept: a spoken item is what its transcript says, and without one it is not kept. Of an answer
that was interrupted as much is kept as was heard.
"""

from dataclasses import dataclass, field
from typing import Any, cast

from gateway.voice.events import Event, is_object, part, said

MOST = 200  # items, the newest
LONGEST = 100_000  # characters of one item
SPOKEN = {"audio": "output_text", "output_audio": "output_text", "input_audio": "input_text"}
PLAIN = {"text", "input_text", "output_text"}
RATES = {"audio/pcm": 48, "audio/pcmu": 8, "audio/pcma": 8}  # bytes in a millisecond
CALLS = {
    "function_call": ("name", "call_id", "arguments"),
    "function_call_output": ("call_id", "output"),
}


@dataclass(slots=True)
class Conversation:
    """`order` has every item that there is, `items` those that can be created again."""

    order: list[str] = field(default_factory=list[str])
    items: dict[str, Event] = field(default_factory=dict[str, Event])
    heard: dict[str, int] = field(
        default_factory=dict[str, int]
    )  # characters of base64, by item
    rate: int = RATES["audio/pcm"]  # of what is said

    @classmethod
    def of(cls, kept: object) -> "Conversation":
        """What was kept, without what is no item."""
        found = cls()
        for item in cast("list[Any]", kept) if isinstance(kept, list) else []:
            if is_object(item) and said(item, "id") and (form := again(item)):
                found.order.append(form["id"])
                found.items[form["id"]] = form
        return found

    def replayed(self) -> list[Event]:
        """The items in their order; the result of a call only with the call."""
        calls = {i["call_id"] for i in self.items.values() if i["type"] == "function_call"}
        return [
            item
            for item in (self.items[one] for one in self.order if one in self.items)
            if item["type"] != "function_call_output" or item["call_id"] in calls
        ]

    def note(self, event: Event) -> bool:
        """What the provider says of an item; whether that changes what can be created again."""
        item = part(event, "item")
        name = said(event, "item_id") or said(item, "id")
        before = self.items.get(name)
        match event["type"]:
            case "conversation.item.added" | "conversation.item.created":
                self._place(name, event.get("previous_item_id"))
                if (
                    said(item, "status") == "completed"
                ):  # a client's own: the link may die before `done`
                    self._put(name, again(item))
            case "conversation.item.done" | "response.output_item.done":
                self._place(name, event.get("previous_item_id"))
                self._put(name, again(item))
            case "conversation.item.input_audio_transcription.completed":
                self._place(name, None)
                self._put(name, _message(name, "user", said(event, "transcript")))
            case "conversation.item.truncated":
                self._cut(name, event.get("audio_end_ms"))
            case "conversation.item.deleted":
                self.items.pop(name, None)
            case _:
                return False
        return self.items.get(name) != before

    def hear(self, item: str, characters: int) -> None:
        """So much audio of the item went to the client."""
        if len(self.heard) > MOST:
            self.heard.clear()
        self.heard[item] = self.heard.get(item, 0) + characters

    def _place(self, name: str, previous: object) -> None:
        if not name or name in self.order:
            return
        if previous == "root":
            self.order.insert(0, name)
        elif isinstance(previous, str) and previous in self.order:
            self.order.insert(self.order.index(previous) + 1, name)
        else:
            self.order.append(name)
        while len(self.order) > MOST:
            self.items.pop(self.order.pop(0), None)

    def _put(self, name: str, form: Event | None) -> None:
        """What was known of it stays where this says nothing: a `done` repeats no transcript."""
        if form is not None and name in self.order:
            self.items[name] = form

    def _cut(self, name: str, end: object) -> None:
        """Keep of an answer what was heard, by its share of the audio that was sent."""
        item = self.items.get(name)
        if item is None or item["type"] != "message" or not isinstance(end, int | float):
            return
        text = "".join(one["text"] for one in item["content"])
        all_ms = max(self.heard.get(name, 0) * 3 / 4 / self.rate, 1)
        share = text[: int(len(text) * min(max(end, 0) / all_ms, 1))].rpartition(" ")[0]
        if share:
            self.items[name] = item | {"content": [{"type": "output_text", "text": share}]}
        else:
            self.items.pop(name)


def again(item: Event) -> Event | None:
    """The item as `conversation.item.create` takes it; None: it cannot be created again."""
    kind, name = said(item, "type"), said(item, "id")
    if kind in CALLS:
        form = {"type": kind, **{key: item.get(key) for key in CALLS[kind]}}
        if not all(isinstance(value, str) for value in form.values()):
            return None
        return {"id": name, **form}
    if kind != "message" or said(item, "role") not in ("user", "assistant", "system"):
        return None
    content = item.get("content")
    texts = [
        _text(one) for one in cast("list[Any]", content if isinstance(content, list) else [])
    ]
    return _message(name, said(item, "role"), " ".join(filter(None, texts)))


def _text(content: Any) -> str:
    if not is_object(content):
        return ""
    kind = said(content, "type")
    return said(content, "text" if kind in PLAIN else "transcript")


def _message(name: str, role: str, text: str) -> Event | None:
    if not text.strip():
        return None
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": text[:LONGEST]}]
    return {"id": name, "type": "message", "role": role, "content": content}
