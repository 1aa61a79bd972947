"""The SDK's own contract of a SessionStore, whole, on Postgres."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, cast

import psycopg
import pytest
from claude_agent_sdk import (
    SessionKey,
    SessionStore,
    list_sessions_from_store,
    project_key_for_directory,
)
from claude_agent_sdk.testing import run_session_store_conformance

from worker.agent.store import PostgresStore

Make = Callable[[], PostgresStore]


@contextmanager
def transaction(dsn: str):
    with psycopg.connect(dsn, autocommit=True) as conn, conn.transaction():
        yield conn


@pytest.fixture
def make_store(dsn: str) -> Make:
    """A new store on an emptied database at each call."""
    opened: Callable[[], AbstractContextManager[psycopg.Connection]] = partial(transaction, dsn)

    def make() -> PostgresStore:
        with opened() as conn:
            conn.execute("truncate transcript_entries, transcript_batches, transcript_sessions")
        return PostgresStore(opened)

    return make


def test_the_store_keeps_the_sdks_contract(make_store: Make):
    make = cast(Callable[[], SessionStore], make_store)
    asyncio.run(run_session_store_conformance(make, skip_optional=frozenset()))


def test_no_project_sees_another_projects_sessions(make_store: Make):
    async def look() -> None:
        store = make_store()
        await store.append(_key("A"), [_said("a secret of A")])
        await store.append(_key("B"), [_said("a secret of B")])
        await store.append(_key("A", "subagents/agent-1"), [_said("more of A")])

        assert await store.load(_key("A")) == [_said("a secret of A")]
        assert await store.load(_key("B", "subagents/agent-1")) is None
        assert await store.list_subkeys(_key("B")) == []
        await store.delete(_key("B"))
        assert await store.load(_key("A")) == [_said("a secret of A")]
        assert await store.list_sessions("B") == []

    asyncio.run(look())


def test_a_prompt_with_a_nul_and_a_lone_surrogate_is_listed_by_the_sdk(make_store: Make):
    async def look() -> None:
        store = make_store()
        key = SessionKey(
            project_key=project_key_for_directory("/"),
            session_id="7c4ffbd6-7a5e-4d3a-93f5-7ff3cf6d3f6c",
        )
        await store.append(key, [_said("nul \0, surrogate \ud800")])
        listed = await list_sessions_from_store(cast(SessionStore, store), directory="/")
        assert [info.first_prompt for info in listed] == ["nul \0, surrogate \ud800"]

    asyncio.run(look())


def _key(project: str, subpath: str | None = None) -> SessionKey:
    key = SessionKey(project_key=project, session_id="s")
    return key if subpath is None else {**key, "subpath": subpath}


def _said(text: str) -> Any:
    content = [{"type": "text", "text": text}]
    return {"type": "user", "message": {"role": "user", "content": content}}
