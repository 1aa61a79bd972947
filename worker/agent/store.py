"""The SDK's SessionStore on Postgres, and the one that a job gives to its agent.

    SDK ── append(key, entries) ──► JobStore ──► PostgresStore ──► db.transcripts.appends
            key names a directory    key names the project; the fence is checked
                                     in the transaction that writes

Both are duck-typed: the SDK's protocol has optional methods, and asks at run time.
The work is psycopg's, in a thread: the event loop goes on reading the agent meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from psycopg import Connection

from db.core import pool
from db.transcripts import appends, listings, transcripts, usual
from db.transcripts.appends import Summary
from db.transcripts.forks import carry
from db.transcripts.form import Entry
from db.transcripts.listings import Stored
from worker.failures.errors import AttemptReplaced, CaptureIncomplete
from worker.failures.retry import awaited_while_held
from worker.process import crash_points, fence

if TYPE_CHECKING:  # half of what a worker loads is the SDK's; others look transcripts up too
    from claude_agent_sdk.types import (
        SessionKey,
        SessionListSubkeysKey,
        SessionStoreEntry,
        SessionStoreListEntry,
        SessionSummaryEntry,
    )

# Seconds for which an append that found Postgres away is begun again. The SDK gives up a batch
# after 60 s, and one that fails after three tries within a second.
PATIENCE = 30.0

Transaction = Callable[[], AbstractContextManager[Connection]]
Guard = Callable[[Connection, str], None]  # given the session that was written
Quick = Callable[[str, str, list[Entry]], bool]  # given session, subpath and entries


class PostgresStore:
    """The whole contract of the SDK's SessionStore; its project key is our project id.

    `transaction` opens what each call runs in. `guard` is called last in a transaction
    that appends, with the session's id, and raises to refuse it. `quick` may have a quicker way
    to append; False, nothing written: it has none.
    """

    def __init__(
        self,
        transaction: Transaction = pool.transaction,
        guard: Guard | None = None,
        quick: Quick | None = None,
    ) -> None:
        self._transaction = transaction
        self._guard = guard
        self._quick = quick
        self._unstored: list[list[SessionStoreEntry]] = []

    @property
    def whole(self) -> bool:
        """False while a batch is on its way, and for good once one was lost."""
        return not self._unstored

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        await asyncio.to_thread(self._append, key, entries)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        """Raises TranscriptDamaged when only part of it can be read."""
        return await asyncio.to_thread(self._load, key)

    async def list_sessions(self, project_key: str) -> list[SessionStoreListEntry]:
        return [
            {"session_id": stored.session_id, "mtime": _mtime(stored)}
            for stored in await self._listed(project_key)
            if not stored.subpath
        ]

    async def list_session_summaries(self, project_key: str) -> list[SessionSummaryEntry]:
        return [
            _summary_entry(stored.session_id, stored.summary, mtime=_mtime(stored))
            for stored in await self._listed(project_key)
            if not stored.subpath and stored.summary is not None
        ]

    async def delete(self, key: SessionKey) -> None:
        await asyncio.to_thread(self._delete, key)

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        stored = await self._listed(key["project_key"], key["session_id"])
        return [one.subpath for one in stored if one.subpath]

    def _append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        """A failed batch is tried again with the very same list, by the SDK too: so it is
        recognised, and two equal batches that are meant as two are not taken for one."""
        again = any(batch is entries for batch in self._unstored)
        if not again:
            self._unstored.append(entries)
        given, subpath = cast(list[Entry], entries), key.get("subpath", "")
        if again or not (self._quick and self._quick(key["session_id"], subpath, given)):
            self._append_slowly(key, given, again=again)
        self._unstored = [batch for batch in self._unstored if batch is not entries]

    def _append_slowly(self, key: SessionKey, entries: list[Entry], *, again: bool) -> None:
        subpath = key.get("subpath", "")
        with self._transaction() as conn:
            appends.append(
                conn,
                key["project_key"],
                key["session_id"],
                entries,
                subpath=subpath,
                fold=None if subpath else summarise(key["session_id"]),
                again=again,
            )
            if self._guard:
                self._guard(conn, key["session_id"])

    def _load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        with self._transaction() as conn:
            loaded = transcripts.load(
                conn, key["project_key"], key["session_id"], subpath=key.get("subpath", "")
            )
        return cast("list[SessionStoreEntry] | None", loaded)

    def _delete(self, key: SessionKey) -> None:
        with self._transaction() as conn:
            listings.delete(
                conn, key["project_key"], key["session_id"], subpath=key.get("subpath")
            )

    async def _listed(self, project_id: str, session_id: str | None = None) -> list[Stored]:
        return await asyncio.to_thread(self._list, project_id, session_id)

    def _list(self, project_id: str, session_id: str | None) -> list[Stored]:
        with self._transaction() as conn:
            return listings.listed(conn, project_id, session_id)


class JobStore:
    """The store of one attempt at a job: the project's sessions, and no others.

    The SDK's project key, made of a path of this machine, is replaced by the project's
    id. What a replaced attempt appends is refused with AttemptReplaced, and with
    CaptureIncomplete what is meant for a session of another lane or project (an agent that
    keeps its parent's id). While the job is held, an append outlasts a Postgres that is away,
    or takes no writes. `parent` is the session to resume, as it was just loaded and checked:
    it is not read a second time.
    A fork has its parent's sub-agents from its first append on, so also if it breaks off.
    `template` is the project that the parent is of, if that is another one: of it nothing
    but the parent is read, and nothing is written to it.
    """

    def __init__(
        self,
        project_id: str,
        *,
        job_id: UUID,
        attempt: UUID,
        parent: tuple[str, list[Entry]] | None = None,
        template: str | None = None,
        transaction: Transaction = pool.transaction,
    ) -> None:
        self._project_id = project_id
        self._parent = parent
        self._parents_project = template or project_id
        self._store = PostgresStore(transaction, self._before_commit, self._quickly)
        self._single = pool.connection if transaction is pool.transaction else transaction
        self._of_template = template is not None
        self._refuse = _fence(job_id, attempt)
        self._whole_forks = set[str]()
        self._writer = usual.Writer(
            project_id,
            job_id,
            attempt,
            parent=parent[0] if parent else None,
            told=_told(parent[1]) if parent and not template else set(),
        )
        self._left = dict[tuple[str, str], usual.Written]()  # of transcripts of our own
        self._unusual = set[tuple[str, str]]()
        if parent:
            self._unusual.add((parent[0], ""))  # an agent that keeps its id goes on with it
        self.appended = 0  # entries the agent wrote and we kept
        self.messages = 0  # those of them that are of user and agent

    @property
    def whole(self) -> bool:
        """Whether all that the agent wrote so far is in the store."""
        return self._store.whole

    async def append(self, key: SessionKey, entries: list[SessionStoreEntry]) -> None:
        patiently = awaited_while_held(fence.left, within=PATIENCE)
        await patiently(self._store.append, self._ours(key), entries)
        self._whole_forks.add(key["session_id"])
        crash_points.reach("transcript.stored")
        self.appended += len(entries)
        self.messages += sum(entry["type"] in ("user", "assistant") for entry in entries)

    async def load(self, key: SessionKey) -> list[SessionStoreEntry] | None:
        if self._parent and key["session_id"] == self._parent[0] and not key.get("subpath"):
            return cast("list[SessionStoreEntry]", self._parent[1])
        return await self._store.load(
            {**key, "project_key": self._read_from(key["session_id"])}
        )

    async def list_subkeys(self, key: SessionListSubkeysKey) -> list[str]:
        return await self._store.list_subkeys(
            {
                "project_key": self._read_from(key["session_id"]),
                "session_id": key["session_id"],
            }
        )

    def _quickly(self, session: str, subpath: str, entries: list[Entry]) -> bool:
        """Append in one statement, where this store alone has written the transcript so far."""
        where = (session, subpath)
        begins = self._of_template and session not in self._whole_forks
        if begins or where in self._unusual:
            return False
        self._unusual.add(where)  # unless it is known to be done
        with self._single() as conn:
            written = usual.append(
                conn,
                self._writer,
                session,
                entries,
                subpath=subpath,
                last=self._left.get(where),
                fold=None if subpath else summarise(session),
            )
        if written:
            self._left[where] = written
            self._unusual.discard(where)
        return written is not None

    def _before_commit(self, conn: Connection, session: str) -> None:
        if self._parent and session not in (self._parent[0], *self._whole_forks):
            carry(
                conn,
                self._project_id,
                parent=self._parent[0],
                child=session,
                of=self._parents_project,
            )
        self._refuse(conn, session)

    def _read_from(self, session: str) -> str:
        is_parent = self._parent is not None and session == self._parent[0]
        return self._parents_project if is_parent else self._project_id

    def _ours(self, key: SessionKey) -> SessionKey:
        return {**key, "project_key": self._project_id}


def _told(entries: list[Entry]) -> set[str]:
    return {entry["uuid"] for entry in entries if isinstance(entry.get("uuid"), str)}


def _fence(job_id: UUID, attempt: UUID) -> Guard:
    def refuse(conn: Connection, session: str) -> None:
        # `for share` makes a takeover wait for our commit, or us see the takeover. It is
        # the transaction's last statement, so a renewal waits for a commit at the most.
        held = conn.execute(
            """
            select exists (select from project_ai_session_metrics m
                            where m.session_id = %s
                              and (m.project_id <> j.project_id or m.lane <> j.lane))
              from jobs j
             where j.id = %s and j.attempt = %s and j.state = 'running'
               for share
            """,
            (session, job_id, attempt),
        ).fetchone()
        if held is None:
            raise AttemptReplaced(f"job {job_id}: attempt {attempt} may not write any more")
        if held[0]:
            raise CaptureIncomplete(
                f"The agent went on under the id {session}, which is a session of another line"
                " of work: nothing was added to it."
            )

    return refuse


def summarise(session_id: str) -> appends.Fold:
    """What makes the summary by which the SDK lists the session."""
    from claude_agent_sdk import fold_session_summary

    key: SessionKey = {"project_key": "", "session_id": session_id}

    def fold(last: Summary | None, entries: list[Entry]) -> Summary:
        previous = None if last is None else _summary_entry(session_id, last, mtime=0)
        new = cast("list[SessionStoreEntry]", entries)
        return fold_session_summary(previous, key, new)["data"]

    return fold


def _summary_entry(session_id: str, data: dict[str, Any], *, mtime: int) -> SessionSummaryEntry:
    return {"session_id": session_id, "mtime": mtime, "data": data}


def _mtime(stored: Stored) -> int:
    """Milliseconds since the epoch, of Postgres' clock."""
    return int(stored.updated_at.timestamp() * 1000)
