"""What the agent writes, told as it is written: the model's answer comes in pieces of a few words.

Pieces are told of a block that takes its time; the whole block comes after them, and replaces them.
"""

import time
from dataclasses import dataclass, field
from typing import Any

from worker.agent import Watch

EVERY = 0.15  # seconds from a block's beginning to its first piece, and between two
BEGINS = {"message_start", "content_block_start"}  # what was not whole by then will never be


@dataclass(slots=True)
class Writing:
    """The block that is being written."""

    text: str = ""  # of it, not told yet
    told: int = 0  # characters of it
    due: float = field(default_factory=time.monotonic)  # the next piece

    def hear(self, event: dict[str, Any], watch: Watch) -> None:
        """Take in an event of the API's stream, and tell a piece if it is time for one."""
        match event:
            case {"type": kind} if kind in BEGINS:
                self.text, self.told, self.due = "", 0, time.monotonic() + EVERY
            case {"delta": {"type": "text_delta", "text": str(text)}}:
                self.text += text
            case _:
                return
        if self.text and (now := time.monotonic()) >= self.due:
            watch.saw("writing", {"from": self.told, "text": self.text})
            self.text, self.told, self.due = "", self.told + len(self.text), now + EVERY
