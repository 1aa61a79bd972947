"""A connection of our own: at READ COMMITTED, and noticed soon when either end of it is gone.

    direct   what we need is said once, for the session, and every statement is prepared on
             first use (measured: it halves what Postgres spends on a step)
    pooled   PgBouncer or its like is between: what one transaction runs on is another
             client's next. So each transaction says for itself what it needs, a statement
             alone is made a transaction, and nothing is prepared or set for longer

Which of them it is shows in the process: a pooler does not tell the one in Postgres.
"""

import select
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from importlib import import_module
from typing import Any, LiteralString, Self

from psycopg import Connection, Cursor, IsolationLevel, Transaction
from psycopg.abc import Params
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from db.core.timestamps import read_patiently

# psycopg reads each statement for its parameters, and keeps what it read of those below 4 kB:
# the claim and the commit are longer, and reading them anew was an eighth of a chain's processor
# time. Where a later psycopg has no such bound, this says it to nobody.
_read = vars(import_module("psycopg._queries"))
_read["MAX_CACHED_STATEMENT_LENGTH"] = 2**15  # characters
_read["MAX_CACHED_STATEMENT_PARAMS"] = 100

# A connection that has died is noticed in seconds, not when TCP gives up.
LIVENESS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 8000,  # milliseconds
    "application_name": "baton",
}

SURELY = 3.0  # seconds after its last use in which a connection is not asked whether it lives

# The server notices a client that has died as soon as we notice a dead server: by default it
# takes two hours, and holds the client's locks as long. One that was stopped in the middle of a
# transaction answers still: it loses that transaction. Whatever isolation the database has by
# default: our statements are made for READ COMMITTED, and say what they lock.
FOR_THE_SESSION: LiteralString = """
    select set_config('tcp_keepalives_idle', '5', false),
           set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('tcp_user_timeout', '8s', false),
           set_config('idle_in_transaction_session_timeout', '60s', false),
           set_config('default_transaction_isolation', 'read committed', false)
     where pg_backend_pid() = %s"""
# A statement that is refused may hold a prompt, and so may what Postgres says of the row: neither
# goes into its log, where this role may say so (a superuser; or as `baton migrate --roles` grants).
FOR_ITS_LOG: LiteralString = """
    select set_config(name, value, false)
      from (values ('log_min_error_statement', 'panic'), ('log_error_verbosity', 'terse'),
                   ('log_parameter_max_length_on_error', '0')) as said (name, value)
     where case when current_setting('server_version_num')::int >= 150000
                then has_parameter_privilege(name, 'set')
                else current_setting('is_superuser')::bool end"""
# Given: for how long a statement waits for a lock; null: as the database says.
FOR_THE_TRANSACTION: LiteralString = """
    select set_config('idle_in_transaction_session_timeout', '60s', true),
           set_config('lock_timeout', coalesce(%s, current_setting('lock_timeout')), true)"""


def spoken(socket: int) -> bool:
    """Whether something came over a connection that nothing was asked of: most likely its end.
    Costs no round trip."""
    looked = select.poll()
    looked.register(socket, select.POLLIN)
    return bool(looked.poll(0))


class Own(Connection[TupleRow]):
    """A connection that begins as this module says."""

    pooled = False
    used_at = 0.0  # when it was last known to live (time.monotonic)
    # For how long a statement waits for a lock; None: as the database says
    patience: str | None = None

    def begin(self) -> Self:
        """Say what we need, and find out who answers. Before it is used for anything else."""
        read_patiently(self)
        self.isolation_level = IsolationLevel.READ_COMMITTED
        answer = self.execute(FOR_THE_SESSION, (self.info.backend_pid,), prepare=False)
        if not answer.rowcount:
            self.pooled, self.cursor_factory = True, Single
            self.prepare_threshold = None
        else:
            self.execute(FOR_ITS_LOG, prepare=False)
        return self

    def seems_alive(self) -> bool:
        """Whether it was used just now, and the other end has not hung up since: told without
        asking it. One that went silent is found out by the statement itself."""
        if time.monotonic() - self.used_at > SURELY or self.closed:
            return False
        return not spoken(self.fileno())

    def wait_at_most(self, patience: str) -> None:
        """Wait for no lock for longer than that, such as `5s`; then LockNotAvailable is raised."""
        self.patience = patience
        if not self.pooled:
            self.execute("select set_config('lock_timeout', %s, false)", (patience,))

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Generator[Transaction]:
        outermost = self.info.transaction_status == TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as block:
            if outermost and self.pooled:
                self.execute(FOR_THE_TRANSACTION, (self.patience,))
            yield block


class Single(Cursor[Any]):
    """A cursor whose statements, where none is open, are each a transaction of ours."""

    def execute(
        self,
        query: Any,
        params: Params | None = None,
        *,
        prepare: bool | None = None,
        binary: bool | None = None,
    ) -> Self:
        if self._needs_none(query):
            return super().execute(query, params, prepare=prepare, binary=binary)
        with self.connection.transaction():
            return super().execute(query, params, prepare=prepare, binary=binary)

    def executemany(
        self, query: Any, params_seq: Iterable[Params], *, returning: bool = False
    ) -> None:
        with self.connection.transaction():  # or a savepoint
            super().executemany(query, params_seq, returning=returning)

    def _needs_none(self, query: Any) -> bool:
        """One is open, or begins by itself; or it is the pool, which asks only whether the
        connection lives."""
        idle = self.connection.info.transaction_status == TransactionStatus.IDLE
        return not idle or not self.connection.autocommit or query == ""
