"""What is answered: text, a call of a tool, audio that is a tone; and what that used."""

import base64
import json
import math
import re
from array import array
from functools import cache
from typing import Any

JSON = dict[str, Any]
CALL = re.compile(r"\bcall (\w+)")
PIECE = 120  # milliseconds of audio in one delta


def words(items: list[JSON], tools: list[JSON]) -> tuple[str, str]:
    """What is said to the conversation, and the tool that is called instead, or nothing."""
    last = items[-1] if items else {}
    if last.get("type") == "function_call_output":
        return f"It says: {last.get('output', '')}", ""
    said = spoken(last)
    found = CALL.search(said)
    known = {tool.get("name") for tool in tools}
    if found and found[1] in known:
        return "", found[1]
    return (f"You said: {said}" if said else "I heard you."), ""


def spoken(item: JSON) -> str:
    """The text of a message."""
    parts: list[JSON] = item.get("content") or []
    return " ".join(one.get("text") or one.get("transcript") or "" for one in parts).strip()


def pieces(text: str) -> list[str]:
    """The text in the pieces in which it is told."""
    return re.findall(r"\S+\s*", text) or [text]


@cache
def tone(kind: str) -> str:
    """A piece of audio, in base64."""
    if kind != "audio/pcm":
        return base64.b64encode(bytes([0x8F, 0x0F] * (PIECE * 4))).decode()
    samples = (int(8000 * math.sin(n * 440 * 2 * math.pi / 24000)) for n in range(24 * PIECE))
    return base64.b64encode(array("h", samples).tobytes()).decode()


def arguments(said: str) -> str:
    """What a tool is called with."""
    return json.dumps({"said": said})


def usage(items: list[JSON], text: str, total: int | None) -> JSON:
    """What the response used, in tokens: about one for each word, unless a total is given."""
    heard = sum(len(spoken(item).split()) + 4 for item in items)
    said = max(len(text.split()), 1)
    if total is not None:
        heard, said = max(total - said, 0), min(said, total)
    return {
        "total_tokens": heard + said,
        "input_tokens": heard,
        "output_tokens": said,
        "input_token_details": {"text_tokens": heard, "audio_tokens": 0, "cached_tokens": 0},
        "output_token_details": {"text_tokens": said, "audio_tokens": 0},
    }
