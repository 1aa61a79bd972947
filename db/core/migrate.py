"""Migrations: plain SQL files, forward only, one run at a time, while others are at work.

    migrations/0008_branches.sql    applied once, in the order of their names, step by step
    functions/enqueue.sql           functions and views as they are today: applied again
                                    whenever their text has changed, after the migrations
    migrations/0060_unused….sql     of these, what only takes away: after the functions

How a file says in which steps it is applied: db/core/migration_files.py. How a step is applied so
that nobody waits for long: db/core/migration_steps.py. A step that is done of a file that is not is noted under
the file's name and its number, so that a run which broke off is gone on with.

A migration that was applied and has changed since is refused: the database would not be
what the file says. Existing tables of the product are kept and completed; what of
theirs ours cannot work with is refused before anything is done (db/core/product.py).

A function whose arguments change is dropped at the top of its file, so that it is never missing;
a view whose columns change is dropped by a migration first.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from psycopg import Connection, errors

from db.core import ledger_settings, migration_files, product, roles
from db.core.lookout import Lookout, Tell
from db.core.migration_files import Migration, digest
from db.core.migration_steps import PATIENCE, Hand, HeldUp
from db.core.pool import connect
from db.core.product import MigrationRefused

__all__ = ["MigrationRefused", "migrate", "pending"]

FILES = Path(__file__).parents[1] / "migrations"
FUNCTIONS = Path(__file__).parents[1] / "functions"
LOCK = 7_239_185_001  # any number of our own: one run at a time
POLL = 0.1  # seconds
OLDEST = 14  # of Postgres: range_agg, multiranges, the hash of a record; waitstart of locks


def migrate(
    database_url: str | None = None,
    *,
    files: Path = FILES,
    tell: Tell = lambda _: None,
    patience: float = PATIENCE,
    with_roles: bool = False,
) -> list[str]:
    """Bring the database up to date. Returns the names of the files that were applied.

    `tell` is given each of them as `applied NAME`, and what is waited for. `with_roles`: roles of
    least right are made, and given what is theirs (db/core/roles.py). Raises NoDatabase, or
    MigrationRefused with a sentence that says what to do; then what was applied stays.
    """
    with (
        connect(database_url) as conn,
        connect(database_url) as beside,
        connect(database_url) as turn,
    ):
        check_version(conn.info.server_version)
        try:
            with _alone(turn, tell, patience):
                hand = Hand(conn, Lookout(beside), tell, patience)
                hand.gently("baton_migrations", lambda: _begin(conn))
                found = migration_files.read(files)
                applied = [one.name for one in found if not one.late and _apply(hand, one)]
                applied += _replace(hand, files)
                applied += [one.name for one in found if one.late and _apply(hand, one)]
                if with_roles:
                    roles.make(hand)
                elif applied and roles.given(conn):
                    roles.give(hand)
                hand.gently("settings", lambda: ledger_settings.tell(conn, only_given=True))
        except HeldUp as exc:
            raise MigrationRefused(str(exc)) from exc
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


@contextmanager
def _alone(turn: Connection, tell: Tell, patience: float) -> Generator[None]:
    """Be the one run, for as long as the transaction of the connection `turn` is open.

    It is idle meanwhile, without a snapshot: an index that is built would wait for its end. For
    the same reason each try to become the one is a transaction of its own.
    """
    until, told = time.monotonic() + patience, False
    while True:
        with turn.transaction():
            if _is_mine(turn):
                yield
                return
        if time.monotonic() > until:
            raise HeldUp("Another run of `baton migrate` is under way: wait for its end.")
        if not told:
            tell("Another run of `baton migrate` is under way: this one waits for its end.")
            told = True
        time.sleep(POLL)


def _is_mine(turn: Connection) -> bool:
    turn.execute("select set_config('idle_in_transaction_session_timeout', '0', true)")
    if turn.info.server_version >= 170_000:
        turn.execute("select set_config('transaction_timeout', '0', true)")
    # In one message: what is sent in parts keeps its snapshot until the next statement.
    asked = f"select pg_try_advisory_xact_lock({LOCK})".encode()
    return turn.execute(asked, prepare=False).fetchone() == (True,)


def _begun(conn: Connection) -> bool:
    """Whether a migration of ours was here before."""
    return conn.execute(
        "select to_regclass(quote_ident(current_schema()) || '.baton_migrations')"
    ).fetchone() != (None,)


def _begin(conn: Connection) -> None:
    begun = _begun(conn)
    product.check(conn, begun=begun)
    if begun:  # a role that may create no table is not refused where there is nothing to do
        return
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
    """The digest of each file that was applied, by its name; and of each step that waits for
    the rest of its file."""
    return dict(conn.execute("select name, digest from baton_migrations").fetchall())


def _apply(hand: Hand, migration: Migration) -> bool:
    """Apply what of the file was not yet. Whether there was anything."""
    applied, conn = _applied(hand.conn), hand.conn
    if migration.name in applied:
        if applied[migration.name] not in migration.digests:
            raise _changed_since(migration)
        return False
    *before, last = [_part(migration, n) for n in range(len(migration.steps))]
    for name, step in zip([*before, last], migration.steps, strict=True):
        if name not in applied:
            note = _whole if name == last else _note
            hand.apply(migration.name, step, lambda: note(conn, migration, name))  # noqa: B023
        elif applied[name] != migration.digests[0]:
            raise _changed_since(migration)
    hand.tell(f"applied {migration.name}")
    return True


def _part(migration: Migration, number: int) -> str:
    return f"{migration.name} step {number + 1}"


def _changed_since(migration: Migration) -> MigrationRefused:
    return MigrationRefused(
        f"Migration {migration.name} has changed since it was applied: restore the file,"
        " and put the change into a new one."
    )


def _note(conn: Connection, migration: Migration, name: str) -> None:
    conn.execute(
        "insert into baton_migrations (name, digest) values (%s, %s)",
        (name, migration.digests[0]),
    )


def _whole(conn: Connection, migration: Migration, _name: str) -> None:
    """All of the file is done: what was noted of its steps is of no use any more."""
    parts = [_part(migration, n) for n in range(len(migration.steps))]
    conn.execute("delete from baton_migrations where name = any(%s)", (parts,))
    _note(conn, migration, migration.name)


def _functions(files: Path) -> dict[str, str]:
    """The text of each file of functions and views that belongs to these migrations."""
    folder = files.with_name("functions")
    return {f"functions/{file.name}": file.read_text() for file in sorted(folder.glob("*.sql"))}


def _changed(applied: dict[str, str], files: Path) -> dict[str, str]:
    """Functions that are to be applied again; none where a newer Baton was here before us."""
    known = {file.name for file in files.glob("*.sql")}
    given = {
        name.partition(" step ")[0] for name in applied if not name.startswith("functions/")
    }
    if given - known:
        return {}
    found = _functions(files)
    return {name: text for name, text in found.items() if applied.get(name) != digest(text)}


def _replace(hand: Hand, files: Path) -> list[str]:
    """Apply the functions and views that changed, all or none. Returns their files' names."""
    changed = _changed(_applied(hand.conn), files)

    def replace() -> None:
        for name, text in changed.items():
            hand.conn.execute(text.encode(), prepare=False)  # query: a file of ours
            hand.conn.execute(
                """
                insert into baton_migrations (name, digest) values (%s, %s)
                on conflict (name) do update set digest = excluded.digest, applied_at = now()
                """,
                (name, digest(text)),
            )
        if roles.given(hand.conn):
            roles.grant_views(hand.conn)

    if changed:
        hand.gently("functions and views", replace)
    for name in changed:
        hand.tell(f"applied {name}")
    return list(changed)
