"""The summary that answers the CLI's request for a compaction.

It tells what was asked, word for word but cut to a length, and which files were written
for it, and carries an earlier summary's tale on. `conversation.summarised` reads it back,
so that the model knows after a compaction what it knew before.
"""

import json

from dev.standin.conversation import Conversation, Exchange
from dev.standin.past import work

KEPT = 400  # characters of a prompt; the last one is kept longer, work on it may go on
KEPT_LAST = 4000
KEPT_HISTORY = 1500


def summary(conversation: Conversation, *, steps: int) -> str:
    """The summary of a conversation; `steps` is how far the work on the last prompt is."""
    exchanges = conversation.exchanges
    lines = [_line(e, KEPT) for e in exchanges[:-1]] + [
        _line(e, KEPT_LAST) for e in exchanges[-1:]
    ]
    history = conversation.history[:KEPT_HISTORY]
    return "\n".join(
        [
            "<analysis>What was asked, and which files were touched for it.</analysis>",
            "<summary>",
            *([f"<before>{history}</before>"] if history else []),
            "1. All user messages, each with what was done for it:",
            *(lines or ["   none"]),
            "2. Current work: the last of these messages.",
            f"   Steps done: {steps}",
            "</summary>",
        ]
    )


def _line(exchange: Exchange, limit: int) -> str:
    prompt = exchange.prompt
    cut = prompt if len(prompt) <= limit else prompt[: limit - 1] + "…"
    done = work(exchange)
    return f"   - {json.dumps(cut, ensure_ascii=False)}" + (f" → {done}" if done else "")
