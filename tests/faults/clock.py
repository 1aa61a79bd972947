"""A ledger whose clock is set by the test: leases end and limits pass without waiting.

The product's SQL says `now()`. Here a schema of its own, before pg_catalog in the search
path, has functions `now()` and `clock_timestamp()` that answer what the test has set, and
the migrations run in that schema: so statements (prepared ones too), column defaults and
functions, `baton_enqueue` among them, all read the test's clock.

Not covered: what Postgres times by itself (statement and lock time-outs). And there is one
connection, so a statement is never in the middle of another: waiting for a row's lock,
SKIP LOCKED and re-reading a row that changed meanwhile are for tests with real connections.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import LiteralString

import psycopg
from psycopg import Connection, sql

from db.core.migrate import migrate
from db.jobs.jobs import NEVER
from tests.faults.ledger_rows import FOREVER

START = datetime(2030, 1, 1, tzinfo=UTC)

SCHEMA: LiteralString = """
    create schema sim;
    create function sim.now() returns timestamptz language sql stable parallel safe as
        $$ select pg_catalog.to_timestamp(pg_catalog.current_setting('sim.now')::pg_catalog.float8) $$;
    create function sim.clock_timestamp() returns timestamptz language sql stable as
        $$ select sim.now() $$;
"""

WRITTEN = (
    *("projects", "project_versions", "session_transitions", "project_ai_session_metrics"),
    *("project_chat_log_minimal", "chat_plan_sessions", "jobs", "events", "turns"),
    *("session_resume_attempts", "limits", "user_turns", "lane_ends", "checks", "branches"),
)

CONTENTS = sql.SQL("select {}").format(
    sql.SQL(", ").join(
        sql.SQL("(select md5(string_agg(t::text, '|' order by t::text)) from {} t)").format(
            sql.Identifier(table)
        )
        for table in WRITTEN
    )
)


@dataclass
class Clock:
    """The clock of one connection, in whole seconds since START."""

    _conn: Connection
    now: int = 0
    _told: int | None = None

    @property
    def conn(self) -> Connection:
        """The connection, at the present moment."""
        if self._told != self.now:
            told = f"set sim.now = '{START.timestamp() + self.now}'"
            self._conn.pgconn.exec_(told.encode())  # the cheapest way: it is done most
            self._told = self.now
        return self._conn

    def begin_anew(self) -> None:
        """Back to the start, with nothing in the ledger."""
        self.now = 0
        for table in WRITTEN:  # truncating would have every statement planned anew
            self.conn.execute(sql.SQL("delete from {}").format(sql.Identifier(table)))
        # Else what is deleted is in the way: the ten thousandth history takes half as long again.
        tables = sql.SQL(", ").join(map(sql.Identifier, WRITTEN))
        self.conn.execute(sql.SQL("vacuum {}").format(tables))

    def contents(self) -> object:
        """What the ledger holds, as a digest of each table."""
        return self.conn.execute(CONTENTS).fetchone()


@contextmanager
def open_clock(dsn: str) -> Generator[Clock]:
    """Make the empty database one with a clock to be set, and our schema; connect to it."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(SCHEMA, prepare=False)
        change = sql.SQL("alter database {} set ").format(sql.Identifier(conn.info.dbname))
        conn.execute(change + sql.SQL("search_path = sim, pg_catalog"))
        conn.execute(change + sql.SQL("sim.now = '0'"))
    migrate(dsn)
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as conn:
        # Each statement is planned once, not anew for its first five runs.
        conn.execute("set plan_cache_mode = force_generic_plan")
        # Nor by the size that a table had just then, nor anew when somebody has looked at it.
        conn.execute("set enable_seqscan = off")
        for table in WRITTEN:
            off = sql.SQL("alter table {} set (autovacuum_enabled = off)")
            conn.execute(off.format(sql.Identifier(table)))
        conn.execute("create index on events (job_id)")  # the audit of many histories asks
        yield Clock(conn)


def moment(seconds: float) -> datetime:
    """The instant that is so many seconds after START."""
    return NEVER if seconds == FOREVER else START + timedelta(seconds=seconds)


def seconds(instant: datetime) -> float:
    """As `moment`, back."""
    return FOREVER if instant == NEVER else (instant - START).total_seconds()
