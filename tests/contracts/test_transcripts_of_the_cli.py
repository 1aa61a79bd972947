"""What the real CLI writes when it forks: the stored form relies on it, so it is watched."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from claude_agent_sdk import (
    ClaudeAgentOptions,
    SessionStore,
    project_key_for_directory,
    query,
)
from psycopg import Connection

from db.transcripts import transcripts
from db.transcripts.form import Entry, body, soundness
from dev.standin.server import Standin, standin
from worker.agent.store import PostgresStore, Transaction

FIRST, *LATER = ("write a.txt: one", "run: echo two", "/compact", "read a.txt", "and once more")
KEPT = 1  # the tail that a compaction keeps is linked anew when it is forked


@pytest.fixture
def model() -> Generator[Standin]:
    with standin("plain") as running:
        yield running


def test_a_fork_repeats_its_parent_and_is_sound(
    conn: Connection, dsn: str, model: Standin, tmp_path: Path
):
    """All that the CLI changes in what it copies is taken out of the stored bodies, and a
    chain with a compaction in it is sound at every link."""
    cwd = tmp_path / "workspace"
    cwd.mkdir()
    project, store = project_key_for_directory(cwd), PostgresStore(transactions(dsn))

    def turn(prompt: str, parent: str | None) -> tuple[str, list[Entry]]:
        session = asyncio.run(run(store, model, cwd, prompt=prompt, parent=parent))
        entries = transcripts.load(conn, project, session)
        assert entries
        assert soundness(entries) is None, prompt
        return session, entries

    session, before = turn(FIRST, None)
    for prompt in LATER:
        session, after = turn(prompt, session)
        copied = bodies(before).keys() & bodies(after).keys()
        assert copied, prompt
        changed = [uuid for uuid in copied if bodies(before)[uuid] != bodies(after)[uuid]]
        assert len(changed) <= KEPT, prompt
        before = after
    assert model.requests[-1].prompt == LATER[-1]
    assert store.whole


async def run(
    store: PostgresStore, model: Standin, cwd: Path, *, prompt: str, parent: str | None
) -> str:
    session = str(uuid4())
    options = ClaudeAgentOptions(
        cwd=cwd,
        resume=parent,
        fork_session=parent is not None,
        session_id=session,
        session_store=cast(SessionStore, store),
        session_store_flush="eager",
        setting_sources=[],
        allowed_tools=["Write(./**)", "Read(./**)", "Bash(echo *)"],
        env={
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "stand-in",
            "CLAUDE_CONFIG_DIR": str(cwd.parent / "agent"),
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
    )
    async for _ in query(prompt=prompt, options=options):
        pass
    return session


def bodies(entries: list[Entry]) -> dict[Any, bytes]:
    """What is kept of each entry that has a uuid."""
    return {entry["uuid"]: body(entry).digest for entry in entries if "uuid" in entry}


def transactions(dsn: str) -> Transaction:
    @contextmanager
    def transaction() -> Generator[Connection]:
        with psycopg.connect(dsn, autocommit=True) as own, own.transaction():
            yield own

    return transaction
