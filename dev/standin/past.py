"""Telling what a conversation did: for answers about the past, and for summaries."""

import re
from pathlib import PurePosixPath

from dev.standin.conversation import Call, Conversation, Exchange
from dev.standin.scenario import Scenario

QUOTED = 300  # characters of a prompt that an answer repeats
TOLD = 1500  # characters of a history that an answer repeats
DONE = {"Write": "wrote", "Edit": "edited"}  # tools that change a file
NOTHING_KNOWN = (
    "I know nothing of what was done before: this conversation begins with your question."
)


def places(scenario: Scenario, conversation: Conversation) -> dict[str, str]:
    """What the places of a scenario's texts stand for: {cwd}, {prompt}, {past}, …"""
    earlier = conversation.exchanges[:-1]
    return {
        "cwd": conversation.cwd.rstrip("/") or "",
        "prompt": conversation.prompt,
        "n": str(len(conversation.exchanges)),
        "earlier": str(len(earlier)),
        "prompts": "; ".join(quoted(e.prompt) for e in earlier) or "none",
        "past": past(scenario, conversation),
    }


def past(scenario: Scenario, conversation: Conversation) -> str:
    """What was asked and done before the last prompt, the newest first; chores left out."""
    asked = [
        e
        for e in conversation.exchanges[:-1]
        if not any(chore.search(e.prompt) for chore in scenario.chores)
    ]
    lines: list[str] = []
    if asked:
        *before, last = asked
        lines.append(f"Last you asked: {quoted(last.prompt)} {_done(last)}")
        lines += ["Why: because you asked for it, in these words."] if work(last) else []
        lines += [f"Before that you asked: {quoted(e.prompt)} {_done(e)}" for e in before[::-1]]
    if conversation.history:
        lines.append(f"The project's history says:\n{conversation.history[:TOLD]}")
    return "\n".join(lines) or NOTHING_KNOWN


def work(exchange: Exchange) -> str:
    """What was done for a prompt, in a few words; nothing if nothing was."""
    made = [(DONE[c.tool], PurePosixPath(c.path).name) for c in exchange.calls if _made(c)]
    files = dict.fromkeys([*exchange.files, *made])
    by_word = {word: [name for done, name in files if done == word] for word in DONE.values()}
    return "; ".join(f"{word} {', '.join(names)}" for word, names in by_word.items() if names)


def quoted(prompt: str, limit: int = QUOTED) -> str:
    """A prompt in quotes on one line, cut to `limit` characters."""
    line = " ".join(prompt.split())
    return f"“{line if len(line) <= limit else line[: limit - 1] + '…'}”"


def failures(exchange: Exchange) -> str:
    """A sentence on calls that failed and were not made good; empty if there are none."""
    good = {(c.tool, c.path) for c in exchange.calls if not c.failed}
    failed = [c for c in exchange.calls if c.failed and (c.tool, c.path) not in good]
    if not failed:
        return ""
    first = re.sub(r"</?\w+>", "", failed[0].result or "").strip().split("\n")[0]
    count = f"{len(failed)} of {len(exchange.calls)} tool calls failed"
    return f"\n\nNot everything worked: {count}, the first ({failed[0].tool}) with: {first}"


def _done(exchange: Exchange) -> str:
    done = work(exchange)
    return f"For that I {done}." if done else "I answered without changing a file."


def _made(call: Call) -> bool:
    return call.tool in DONE and bool(call.path) and call.result is not None and not call.failed
