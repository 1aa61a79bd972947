"""An agent without a CLI for the fault suite: it takes a moment, does what it is told, and
keeps a log of its own of what it heard, for an oracle outside the product.

A prompt's lines `write NAME: TEXT` make files and `note NAME: TEXT` adds a line to one, so
that a turn that is done twice shows. Any other prompt is answered with what it asks for.
"""

import asyncio
import json
import os
import random
import re
import time
from pathlib import Path
from typing import Any, cast

from claude_agent_sdk import SessionKey

from dev.agents.scripted import scripted
from worker.agent import Agent, Request, Turn, Watch
from worker.agent.store import JobStore

TAKES = (0.05, 0.25)  # seconds of a turn
LINE = re.compile(r"^(write|note) (\S+): (.*)$", re.MULTILINE)
GO_ON = "You were interrupted"
ANSWER = '{"summary": "none", "recommendations": []}'


def deeds(log: Path) -> Agent:
    """The agent; it adds a line of JSON to `log` when a turn begins and when it ends."""

    def agent(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        told = {"project": request.cwd.name, "session": str(request.minted), "pid": os.getpid()}
        prompts = [*_asked(store, request.resume), request.prompt]
        _tell(log, {**told, "what": "began", "mode": request.mode, "prompts": prompts})
        pause = random.uniform(*TAKES) / 2
        time.sleep(pause)
        watch.saw("tool", {"name": "Write"})
        if request.mode == "work" and not watch.stopped():
            _do(request)
        watch.saw("tool.done", {"error": False})
        time.sleep(pause)
        turn = scripted(says=ANSWER)(request, store=store, watch=watch)
        _tell(log, {**told, "what": "ended"})
        return turn

    return agent


def _do(request: Request) -> None:
    """One that was interrupted looks first whether the line is there already."""
    for what, name, text in LINE.findall(request.prompt):
        file = request.cwd / name
        there = file.read_text() if what == "note" and file.exists() else ""
        if not (request.prompt.startswith(GO_ON) and there.endswith(f"{text}\n")):
            file.write_text(f"{there}{text}\n")


def _asked(store: JobStore, session: str | None) -> list[str]:
    """The prompts of the session that is gone on from."""
    if session is None:
        return []
    key: SessionKey = {"project_key": "deeds", "session_id": session}
    entries = cast(list[dict[str, Any]], asyncio.run(store.load(key)) or [])
    return [str(one["message"]["content"]) for one in entries if one["type"] == "user"]


def _tell(log: Path, told: dict[str, Any]) -> None:
    """One write, which appends a line whole also when others write theirs. Who is killed in the
    middle of it leaves half a line: so the break comes before it, and not after."""
    line = "\n" + json.dumps({"at": time.time(), **told})
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
