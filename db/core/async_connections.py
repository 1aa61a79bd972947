"""A connection of our own for asyncio, as db/core/connections.py wants it: at READ COMMITTED, and patient
with locks for as long as whoever uses it can wait."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

from psycopg import AsyncConnection, AsyncCursor, AsyncTransaction, IsolationLevel
from psycopg.abc import Params
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from db.core.connections import FOR_THE_SESSION, FOR_THE_TRANSACTION


class AsyncOwn(AsyncConnection[TupleRow]):
    """As `Own`."""

    pooled = False
    patience: str | None = None

    async def begin(self, patience: str | None) -> Self:
        """Say what we need, and find out who answers. Before it is used for anything else."""
        await self.set_isolation_level(IsolationLevel.READ_COMMITTED)
        self.patience = patience
        answer = await self.execute(FOR_THE_SESSION, (self.info.backend_pid,), prepare=False)
        if not answer.rowcount:
            self.pooled, self.cursor_factory = True, AsyncSingle
            self.prepare_threshold = None
        elif patience:
            await self.execute(
                "select set_config('lock_timeout', %s, false)", (patience,), prepare=False
            )
        return self

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncGenerator[AsyncTransaction]:
        outermost = self.info.transaction_status == TransactionStatus.IDLE
        async with super().transaction(savepoint_name, force_rollback) as block:
            if outermost and self.pooled:
                await self.execute(FOR_THE_TRANSACTION, (self.patience,))
            yield block


class AsyncSingle(AsyncCursor[Any]):
    """A cursor whose statements, where none is open, are each a transaction of ours: the database's
    own isolation would hold for one alone."""

    async def execute(
        self,
        query: Any,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        if self._needs_none(query):
            return await super().execute(query, params, prepare=prepare, binary=binary)
        async with self.connection.transaction():
            return await super().execute(query, params, prepare=prepare, binary=binary)

    def _needs_none(self, query: Any) -> bool:
        """One is open; or it is the pool, which asks only whether the connection lives."""
        idle = self.connection.info.transaction_status == TransactionStatus.IDLE
        return not idle or not self.connection.autocommit or query == ""
