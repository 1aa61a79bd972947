"""A reply on its way out: as one JSON message, or as the API's server-sent events."""

import json
from collections.abc import Iterator
from typing import Any

from dev.standin.cache import Usage, estimate
from dev.standin.messages import JSON
from dev.standin.reply import Reply, Text, ToolUse
from dev.standin.scenario import Think

PIECE = 240  # characters in one delta

Event = tuple[str, JSON]


def message(reply: Reply, *, message_id: str, model: str, usage: Usage) -> JSON:
    """The whole reply as one message."""
    content = [_whole(p) for p in reply.parts if not isinstance(p, Think)]
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "usage": usage.json(output_tokens(reply)),
    }


def events(whole: JSON, reply: Reply, *, piece: int = PIECE) -> Iterator[Event | Think]:
    """The message as events, with the reply's pauses where they belong."""
    usage: JSON = whole["usage"]
    first: JSON = {"content": [], "stop_reason": None, "usage": usage | {"output_tokens": 1}}
    begun = whole | first
    yield "message_start", {"message": begun}
    yield "ping", {}
    index = 0
    for part in reply.parts:
        if isinstance(part, Think):
            yield part
            continue
        yield from _block(part, index, piece)
        index += 1
    ending = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield "message_delta", {"delta": ending, "usage": usage}
    yield "message_stop", {}


def encode(event: Event) -> bytes:
    """An event as it goes over the wire."""
    kind, body = event
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **body})}\n\n".encode()


def output_tokens(reply: Reply) -> int:
    """Tokens of a reply, by the same estimate as those of a request."""
    return sum(estimate(_whole(p)) for p in reply.parts if not isinstance(p, Think))


def _whole(part: Text | ToolUse) -> JSON:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    return {"type": "tool_use", "id": part.id, "name": part.tool, "input": part.input}


def _block(part: Text | ToolUse, index: int, piece: int) -> Iterator[Event]:
    whole = _whole(part)
    if isinstance(part, Text):
        text, kind, field = part.text, "text_delta", "text"
        empty: dict[str, Any] = {"text": ""}
    else:
        text, kind, field = json.dumps(part.input), "input_json_delta", "partial_json"
        empty = {"input": {}}
    yield "content_block_start", {"index": index, "content_block": {**whole, **empty}}
    for start in range(0, len(text), piece):
        delta = {"type": kind, field: text[start : start + piece]}
        yield "content_block_delta", {"index": index, "delta": delta}
    yield "content_block_stop", {"index": index}
