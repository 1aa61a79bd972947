"""Agents without a CLI, that do with session ids what versions of the CLI have done.

    fork    the child has the id that was minted, and a copy of the parent's history
    keep    the parent's id again: the turn is appended to the parent's own transcript
    roll    a copy of the history, under an id that nobody asked for
    reset   an id of its own or the minted one, and no history

They write a small transcript through the store that they are given, as the CLI's is
mirrored, and tell a cumulative cost that grows by the same with each turn.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal, cast
from uuid import uuid4

from claude_agent_sdk import SessionKey

from worker.agent import Agent, Request, Turn, Watch, relation
from worker.agent.store import JobStore
from worker.failures.errors import Stopped

Ids = Literal["fork", "keep", "roll", "reset"]
Entry = dict[str, Any]
Runs = Callable[[Coroutine[Any, Any, Turn]], Turn]


def scripted(
    ids: Ids = "fork", *, says: str = "Done.", cost_usd: float = 0.25, runs: Runs = asyncio.run
) -> Agent:
    """An agent that answers `says` to everything and treats ids in one of four ways. `runs` may be
    that of a loop that is kept: to make one takes longer than all else that it does."""

    def agent(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        if reason := watch.stopped():
            raise Stopped(reason)
        return runs(_turn(request, store, watch))

    async def _turn(request: Request, store: JobStore, watch: Watch) -> Turn:
        session = _session(ids, request)
        past = [] if ids == "reset" else await _load(store, request.resume)
        compacts = request.mode == "compact"
        said = _compacted(past) if compacts else _said(request.prompt, says, past)
        copied = [] if compacts or session == request.resume else past
        before = [float(e["totalCostUSD"]) for e in past if e["type"] == "cost-state"]
        total = cost_usd + (before[-1] if before else 0.0)
        spent = {"type": "cost-state", "totalCostUSD": total}
        written = [{**entry, "sessionId": session} for entry in (*copied, *said, spent)]
        await store.append(_key(session), cast(Any, written))
        watch.alive()
        watch.saw("text", {"text": says})
        return Turn(
            session=session,
            parent=request.resume,
            minted=str(request.minted),
            relation=relation(session, minted=str(request.minted), parent=request.resume),
            text="" if compacts else says,
            raw_cost_usd=total,
            input_tokens=len(request.prompt),
            output_tokens=len(says),
            context_tokens=100 * len(said),
            num_turns=1,
            model="scripted",
            cli_version="scripted",
            compacted=compacts,
            pre_tokens=100 * len(past) if compacts else None,
            post_tokens=100 if compacts else None,
        )

    return agent


def _session(ids: Ids, request: Request) -> str:
    match ids:
        case "keep" if request.resume:
            return request.resume
        case "roll" if request.resume:
            return str(uuid4())
        case _:
            return str(request.minted)


async def _load(store: JobStore, session: str | None) -> list[Entry]:
    if session is None:
        return []
    return cast(list[Entry], await store.load(_key(session)) or [])


def _key(session: str) -> SessionKey:
    return {"project_key": "scripted", "session_id": session}


def _said(prompt: str, answer: str, past: list[Entry]) -> list[Entry]:
    """The prompt and the answer, hung on to the last message before them."""
    last = next((entry["uuid"] for entry in reversed(past) if "uuid" in entry), None)
    asked = _message("user", prompt, last)
    return [asked, _message("assistant", answer, asked["uuid"])]


def _compacted(past: list[Entry]) -> list[Entry]:
    boundary = {
        "type": "system",
        "subtype": "compact_boundary",
        "uuid": str(uuid4()),
        "parentUuid": None,
    }
    text = f"This session is being continued: {len(past)} entries."
    return [boundary, {**_message("user", text, boundary["uuid"]), "isCompactSummary": True}]


def _message(role: str, text: str, parent: str | None) -> Entry:
    return {
        "type": role,
        "uuid": str(uuid4()),
        "parentUuid": parent,
        "message": {"role": role, "content": text},
    }
