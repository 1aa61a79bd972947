"""The Messages API request as it arrives: its blocks and texts, in either of their forms."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """One content block, with the role of its message; a plain string counts as one text."""

    role: str
    body: JSON

    @property
    def kind(self) -> str:
        return str(self.body.get("type"))

    @property
    def text(self) -> str:
        return str(self.body.get("text", "")) if self.kind == "text" else ""


def content_blocks(content: object) -> list[JSON]:
    """A content as a list of blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [cast(JSON, b) for b in cast("list[object]", content or []) if isinstance(b, dict)]


def message_blocks(request: JSON) -> Iterator[Block]:
    """The content blocks of all messages, in order."""
    for message in cast("list[JSON]", request.get("messages") or []):
        for body in content_blocks(message.get("content")):
            yield Block(str(message.get("role")), body)


def texts(content: object) -> str:
    """All text of a content: of a system prompt, or of what a tool answered."""
    return "\n".join(str(b.get("text", "")) for b in content_blocks(content))


def tools(request: JSON) -> tuple[JSON, ...]:
    """The tools a request offers."""
    return tuple(cast("list[JSON]", request.get("tools") or []))
