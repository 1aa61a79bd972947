"""Migrations: plain SQL files, forward only, each in a transaction, under a lock.

    migrations/0008_branches.sql    applied once, in the order of their names
    functions/enqueue.sql           functions and views as they are today: applied again
                                    whenever their text has changed, after the migrations

A migration that was applied and has changed since is refused: the database would not be
what the file says. Existing tables of the product are kept and completed; what of
theirs ours cannot work with is refused before anything is done (db/product.py).

A function whose arguments change is dropped at the top of its file, so that it is never missing;
a view whose columns change is dropped by a migration first.
"""

import hashlib
from pathlib import Path

from psycopg import Connection, errors, sql

from db import ledger_settings, product
from db.pool import connect
from db.product import MigrationRefused

__all__ = ["MigrationRefused", "migrate", "pending"]

FILES = Path(__file__).with_name("migrations")
FUNCTIONS = Path(__file__).with_name("functions")
LOCK = 7_239_185_001  # any number of our own: one migration at a time
OLDEST = 14  # of Postgres: range_agg, multiranges, the hash of a record


def migrate(database_url: str | None = None, *, files: Path = FILES) -> list[str]:
    """Bring the database up to date. Returns the names of the files that were applied.

    Raises NoDatabase, or MigrationRefused with a sentence that says what to do.
    """
    with connect(database_url) as conn:
        check_version(conn.info.server_version)
        try:
            _begin(conn)
            applied = [file.name for file in sorted(files.glob("*.sql")) if _apply(conn, file)]
            applied += _replace(conn, files)
            ledger_settings.tell(conn, only_given=True)
        except errors.InsufficientPrivilege as exc:
            raise MigrationRefused(
                f"This role may not do that ({exc.diag.message_primary}): migrate as the owner"
                " of the schema and of the product's tables."
            ) from exc
        return applied


def check_version(server: int) -> None:
    """Raises MigrationRefused for a Postgres that is too old; `server` is as libpq tells it."""
    if server < OLDEST * 10_000:
        raise MigrationRefused(
            f"Postgres {server // 10_000} is too old: Baton needs {OLDEST} or newer."
        )


def pending(conn: Connection) -> list[str]:
    """Names of files that this database has not seen, or functions of which it has another text."""
    names = [file.name for file in sorted(FILES.glob("*.sql"))]
    if not _begun(conn):
        return [*names, *_functions(FILES)]
    applied = _applied(conn)
    return [*(name for name in names if name not in applied), *_changed(applied, FILES)]


def _begun(conn: Connection) -> bool:
    """Whether a migration of ours was here before."""
    return conn.execute(
        "select to_regclass(quote_ident(current_schema()) || '.baton_migrations')"
    ).fetchone() != (None,)


def _begin(conn: Connection) -> None:
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        product.check(conn, begun=_begun(conn))
        conn.execute(
            """
            create table if not exists baton_migrations (
                name       text primary key,
                digest     text not null,
                applied_at timestamptz not null default now()
            )
            """
        )


def _applied(conn: Connection) -> dict[str, str]:
    """The digest of each file that was applied, by its name."""
    return dict(conn.execute("select name, digest from baton_migrations").fetchall())


def _functions(files: Path) -> dict[str, str]:
    """The text of each file of functions and views that belongs to these migrations."""
    folder = files.with_name("functions")
    return {f"functions/{file.name}": file.read_text() for file in sorted(folder.glob("*.sql"))}


def _changed(applied: dict[str, str], files: Path) -> dict[str, str]:
    """Functions that are to be applied again; none where a newer Baton was here before us."""
    known = {file.name for file in files.glob("*.sql")}
    if any(not name.startswith("functions/") and name not in known for name in applied):
        return {}
    found = _functions(files)
    return {name: text for name, text in found.items() if applied.get(name) != _digest(text)}


def _replace(conn: Connection, files: Path) -> list[str]:
    """Apply the functions and views that changed, all or none. Returns their files' names."""
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
        changed = _changed(_applied(conn), files)
        for name, text in changed.items():
            _run(conn, text)
            conn.execute(
                """
                insert into baton_migrations (name, digest) values (%s, %s)
                on conflict (name) do update set digest = excluded.digest, applied_at = now()
                """,
                (name, _digest(text)),
            )
    return list(changed)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _run(conn: Connection, text: str) -> None:
    """Execute a file of ours; prepare=False lets it hold several statements."""
    conn.execute(sql.SQL(text), prepare=False)  # pyright: ignore[reportArgumentType]


def _apply(conn: Connection, file: Path) -> bool:
    text = file.read_text()
    digest = _digest(text)
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
        _run(conn, text)
        conn.execute(
            "insert into baton_migrations (name, digest) values (%s, %s)", (file.name, digest)
        )
    return True
