"""An answer as it is told, event by event."""

import asyncio
from typing import Any, Protocol
from uuid import uuid4

from dev.standin.realtime import answer

JSON = dict[str, Any]


class Hearer(Protocol):
    """The link that it is told to."""

    items: list[JSON]
    session: JSON
    spoke: bool

    @property
    def pace(self) -> float:
        """Seconds between two pieces."""
        ...

    async def say(self, kind: str, **more: Any) -> None:
        """Send an event."""
        ...

    async def cue(self, moment: str) -> bool:
        """Let go wrong what is to."""
        ...


async def tell(to: Hearer, response: str, wanted: JSON) -> tuple[str, JSON]:
    """Tell the answer to the conversation; its text, and its item. One that is interrupted is in the
    conversation too, as far as it was told: it can be truncated."""
    text, tool = answer.words(to.items, to.session["tools"])
    name, about = f"item_{uuid4().hex[:21]}", {"response_id": response, "output_index": 0}
    before, said = (to.items[-1]["id"], answer.spoken(to.items[-1])) if to.items else (None, "")
    item: JSON = {"id": name, "object": "realtime.item", "status": "in_progress"}
    if tool:
        item |= {"type": "function_call", "name": tool, "call_id": f"call_{uuid4().hex[:12]}",
                 "arguments": ""}  # fmt: skip
    else:
        item |= {"type": "message", "role": "assistant", "content": []}
    await to.say("response.output_item.added", item=item, **about)
    await to.say("conversation.item.added", previous_item_id=before, item=item)
    about |= {"item_id": name}
    to.items.append(item)
    if tool:
        item["arguments"] = answer.arguments(said)
        await to.say("response.function_call_arguments.done", call_id=item["call_id"],
                       arguments=item["arguments"], **about)  # fmt: skip
    else:
        modes = wanted.get("output_modalities") or to.session["output_modalities"]
        try:
            await _speak(to, text, item, about, spoken=modes == ["audio"])
        except asyncio.CancelledError:
            item["status"] = "incomplete"
            await _done(to, item, before, response)
            raise
    item["status"] = "completed"
    await _done(to, item, before, response)
    return text, item


async def _done(to: Hearer, item: JSON, before: str | None, response: str) -> None:
    await to.say("conversation.item.done", previous_item_id=before, item=item)
    await to.say("response.output_item.done", item=item, response_id=response, output_index=0)


async def _speak(to: Hearer, text: str, item: JSON, about: JSON, *, spoken: bool) -> None:
    here = about | {"content_index": 0}
    kind = "response.output_audio_transcript" if spoken else "response.output_text"
    part: JSON = {"type": "output_audio"} if spoken else {"type": "output_text"}
    field = "transcript" if spoken else "text"
    await to.say("response.content_part.added", part=part | {field: ""}, **here)
    item["content"] = [part := part | {field: ""}]
    for piece in answer.pieces(text):
        part[field] += piece
        await to.say(f"{kind}.delta", delta=piece, **here)
        if spoken:
            to.spoke = True
            audio = answer.tone(to.session["audio"]["output"]["format"]["type"])
            await to.say("response.output_audio.delta", delta=audio, **here)
        await asyncio.sleep(to.pace)
        await to.cue("piece")
    if spoken:
        await to.say("response.output_audio.done", **here)
    part[field] = text
    await to.say(f"{kind}.done", **{field: text}, **here)
    await to.say("response.content_part.done", part=part, **here)
