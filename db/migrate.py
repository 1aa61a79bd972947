"""Migrations: plain SQL files, forward only, each in a transaction, under a lock.

A file that was applied and has changed since is refused: the database would not be
what the file says. Existing tables of the product are kept and completed; a column
of theirs whose type ours cannot be compared with is refused before anything is done.
"""

import hashlib
from pathlib import Path

from psycopg import Connection, sql

from db.pool import connect

FILES = Path(__file__).with_name("migrations")
LOCK = 7_239_185_001  # any number of our own: one migration at a time

# Columns of product tables that ours are compared with, and the types that allow it.
TEXT = ("text", "character varying")
EXPECTED = {
    ("projects", "project_id"): TEXT,
    ("projects", "user_id"): TEXT,
    ("projects", "last_ai_session_id"): TEXT,
    ("project_versions", "project_id"): TEXT,
    ("project_versions", "version_id"): TEXT,
    ("project_versions", "ai_session_id"): TEXT,
    ("session_transitions", "project_id"): TEXT,
    ("project_ai_session_metrics", "session_id"): TEXT,
    ("project_chat_log_minimal", "project_id"): TEXT,
    ("chat_plan_sessions", "session_id"): TEXT,
}


class MigrationRefused(Exception):
    """The database is not as the migrations expect; nothing was changed by the refused file."""


def migrate(database_url: str | None = None) -> list[str]:
    """Bring the database up to date. Returns the names of the files that were applied.

    Raises NoDatabase, or MigrationRefused with a sentence that says what to do.
    """
    with connect(database_url) as conn:
        with conn.transaction():
            conn.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
            conn.execute(
                """
                create table if not exists baton_migrations (
                    name       text primary key,
                    digest     text not null,
                    applied_at timestamptz not null default now()
                )
                """
            )
        _check_types(conn)
        return [file.name for file in sorted(FILES.glob("*.sql")) if _apply(conn, file)]


def pending(conn: Connection) -> list[str]:
    """Names of files that this database has not seen."""
    if conn.execute("select to_regclass('baton_migrations')").fetchone() == (None,):
        return [file.name for file in sorted(FILES.glob("*.sql"))]
    applied = {name for (name,) in conn.execute("select name from baton_migrations")}
    return [file.name for file in sorted(FILES.glob("*.sql")) if file.name not in applied]


def _apply(conn: Connection, file: Path) -> bool:
    text = file.read_text()
    digest = hashlib.sha256(text.encode()).hexdigest()
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        seen = conn.execute(
            "select digest from baton_migrations where name = %s", (file.name,)
        ).fetchone()
        if seen and seen[0] != digest:
            raise MigrationRefused(
                f"Migration {file.name} has changed since it was applied: restore the file,"
                " and put the change into a new one."
            )
        if seen:
            return False
        # The file is ours; prepare=False lets it hold several statements.
        conn.execute(sql.SQL(text), prepare=False)  # pyright: ignore[reportArgumentType]
        conn.execute(
            "insert into baton_migrations (name, digest) values (%s, %s)", (file.name, digest)
        )
    return True


def _check_types(conn: Connection) -> None:
    rows = conn.execute(
        """
        select table_name, column_name, data_type from information_schema.columns
         where table_schema = current_schema()
        """
    )
    for table, column, found in rows:
        allowed = EXPECTED.get((table, column))
        if allowed and found not in allowed:
            raise MigrationRefused(
                f"Column {table}.{column} is {found}, and Baton needs {allowed[0]}:"
                " change its type, or give Baton a schema of its own (search_path)."
            )
