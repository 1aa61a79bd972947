"""An agent without a CLI: it asks the stand-in itself, and does what that wants done.

pytestmark = pytest.mark.agent("direct")     # in a test module: who does the jobs of `at_work`

A turn of the real CLI costs a second of a core, and one of these a fiftieth of it. So it is for
promises of the ledger and of files, which hold whatever agent has worked; what the CLI has a part
in (its errors, its transcripts, its box, its signals) is shown with the real one.
"""

import asyncio
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from claude_agent_sdk import SessionKey

from dev.standin import stream
from dev.standin.cache import Usage
from dev.standin.conversation import COMPACTION_REQUEST, CONTINUED
from dev.standin.scenario import Think
from dev.standin.server import Standin
from worker.agent import Agent, Request, Turn, Watch, relation
from worker.agent.store import JobStore
from worker.agent.usage import context, count, weight
from worker.failures.errors import AgentFailed, Stopped

Entry = dict[str, Any]
PRICE = 4e-6  # USD for a token of plain input
TOOLS = ("Write", "Edit", "Bash", "Read")
ANSWER = "StructuredOutput"


def direct(standin: Standin) -> Agent:
    """The agent that asks this stand-in; its requests are in the stand-in's log as the CLI's are."""

    def agent(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        if reason := watch.stopped():
            raise Stopped(reason)
        return _Turn(standin, request, store, watch).run()

    return agent


class _Turn:
    """One turn while it goes on: what was said, what it used, the answer that was asked for."""

    def __init__(
        self, standin: Standin, request: Request, store: JobStore, watch: Watch
    ) -> None:
        self.standin, self.request, self.store, self.watch = standin, request, store, watch
        self.session = str(request.minted)
        self.past = self._load(request.resume)
        self.said = list[Entry]()
        self.used = list[dict[str, Any]]()
        self.answer: Any = None

    def run(self) -> Turn:
        if not self.request.cwd.is_dir():
            raise AgentFailed("workspace_missing", "The directory is gone.")
        if self.request.mode == "compact":
            return self._compacted()
        self._say("user", self.request.prompt)
        while calls := self._ask():
            self._say("user", [self._done(call) for call in calls])
        text = "\n".join(one["text"] for one in self.said[-1]["message"]["content"])
        self._keep([*self.past, *self.said])
        return self._turn(text=text, structured=self.answer)

    def _ask(self) -> list[dict[str, Any]]:
        """The model's next message; returns the tools that it wants used."""
        content = self._heard([*self.past, *self.said])
        self._say("assistant", content)
        for one in content:
            if one["type"] == "text":
                self.watch.saw("text", {"text": one["text"]})
        return [one for one in content if one["type"] == "tool_use"]

    def _heard(self, entries: list[Entry], *more: Entry) -> list[dict[str, Any]]:
        messages = [one["message"] for one in entries if "message" in one]
        tools: list[dict[str, Any]] = [{"name": name} for name in TOOLS]
        if self.request.schema:
            tools.append({"name": ANSWER, "input_schema": self.request.schema})
        body = {
            "model": self.request.model or "claude-opus-5-5",
            "system": f"Working directory: {self.request.cwd}",
            "messages": [*messages, *more],
            "tools": tools,
            "max_tokens": 1000,
        }
        model = self.standin.model
        seen, said, fault = model.see(body, key="direct", session=self.session)
        assert fault is None, "what comes of a fault is for the real CLI to show"
        seen, made, usage = model.answer(seen, said)
        model.note(seen)
        for part in made.parts:
            if isinstance(part, Think) and part.real:
                time.sleep(part.seconds)
        self._charge(usage, stream.output_tokens(made))
        whole = stream.message(made, message_id=str(uuid4()), model=seen.model, usage=usage)
        return whole["content"]

    def _charge(self, usage: Usage, output: int) -> None:
        self.used.append(usage.json(output))
        self.watch.alive()

    def _done(self, call: dict[str, Any]) -> dict[str, Any]:
        """Use the tool, and tell the model what came of it."""
        self.watch.saw("tool", {"name": call["name"]})
        try:
            result, failed = self._use(call["name"], call["input"]), False
        except (OSError, subprocess.CalledProcessError, ValueError) as exc:
            result, failed = str(exc), True
        self.watch.saw("tool.done", {"error": failed})
        answer = {"type": "tool_result", "tool_use_id": call["id"], "content": result}
        return answer | ({"is_error": True} if failed else {})

    def _use(self, tool: str, put: dict[str, Any]) -> str:
        if tool == ANSWER:
            self.answer = put
            return "ok"
        if tool == "Read":
            return Path(put["file_path"]).read_text()
        if self.request.mode != "work":
            raise ValueError("Permission to use it has been denied.")
        if tool == "Bash":
            return self._run(put["command"])
        file = Path(put["file_path"])
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if tool == "Edit" else ""
        new = (
            before.replace(put["old_string"], put["new_string"])
            if before
            else put.get("content")
        )
        file.write_text(new or "")
        return "ok"

    def _run(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.request.cwd,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def _compacted(self) -> Turn:
        ask = {"role": "user", "content": f"{COMPACTION_REQUEST} so far."}
        (summary,) = self._heard(self.past, ask)
        boundary = _entry("system", None) | {"subtype": "compact_boundary"}
        text = f"{CONTINUED} that ran out of context.\n{summary['text']}"
        told = _entry("user", boundary["uuid"]) | {"isCompactSummary": True}
        self._keep([boundary, told | {"message": {"role": "user", "content": text}}])
        return self._turn(
            compacted=True, pre_tokens=len(str(self.past)), post_tokens=len(text), summary=text
        )

    def _say(self, role: str, content: Any) -> None:
        last = next(
            (one["uuid"] for one in reversed([*self.past, *self.said]) if "uuid" in one), None
        )
        self.said.append(_entry(role, last) | {"message": {"role": role, "content": content}})

    def _load(self, session: str | None) -> list[Entry]:
        if session is None:
            return []
        return cast(list[Entry], asyncio.run(self.store.load(_key(session))) or [])

    def _keep(self, entries: list[Entry]) -> None:
        spent = {"type": "cost-state", "totalCostUSD": self._cost()}
        written = [{**one, "sessionId": self.session} for one in (*entries, spent)]
        asyncio.run(self.store.append(_key(self.session), cast(Any, written)))

    def _cost(self) -> float:
        """Of the whole chain, as the CLI tells it."""
        before = [
            float(one["totalCostUSD"]) for one in self.past if one["type"] == "cost-state"
        ]
        return PRICE * weight(self.used) + (before[-1] if before else 0.0)

    def _turn(self, **more: Any) -> Turn:
        def used(kind: str) -> int:
            return sum(count(one, kind) for one in self.used)

        turn = Turn(
            session=self.session,
            parent=self.request.resume,
            minted=self.session,
            relation=relation(self.session, minted=self.session, parent=self.request.resume),
            text="",
            raw_cost_usd=self._cost(),
            input_tokens=used("input"),
            output_tokens=used("output"),
            cache_read_tokens=used("cache_read"),
            cache_creation_tokens=used("cache_creation"),
            context_tokens=more.get("post_tokens") or context(self.used[-1]),
            num_turns=len(self.used),
            model="direct",
            cli_version="direct",
        )
        return replace(turn, **more)


def _key(session: str) -> SessionKey:
    return {"project_key": "direct", "session_id": session}


def _entry(role: str, parent: str | None) -> Entry:
    return {"type": role, "uuid": str(uuid4()), "parentUuid": parent}
