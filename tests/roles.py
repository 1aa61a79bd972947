"""Roles as an operator makes them: logins that are in one of Baton's, on a database of the test's."""

from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from psycopg import sql

from db.core import migrate
from tests.databases import execute
from tests.waiting import wait_until


def login(dsn: str, role: str, *, rights: str = "") -> str:
    """The URL of the database for a new login that is in `role`; `migrate --roles` was run."""
    name = f"{role or 'nobody'}_{uuid4().hex[:12]}"
    execute(dsn, f"create role {name} login password 'pw' {rights}")
    if role:
        migrate.migrate(dsn, with_roles=True)
        execute(dsn, f"grant {role} to {name}")
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{name}:pw@{parts.hostname}:{parts.port}").geturl()


def speaking(url: str, user: str | None) -> psycopg.Connection:
    """A connection of that login that speaks for the user; None: for nobody."""
    conn = psycopg.connect(url, autocommit=True)
    if user:
        conn.execute("select set_config('baton.user', %s, false)", (user,))
    return conn


def gone(url: str, dsn: str) -> None:
    """Take the login away."""
    name = urlsplit(url).username or ""
    here = "select from pg_stat_activity where usename = %s"
    with psycopg.connect(dsn, autocommit=True) as conn:
        # A session that has just ended may still be taking its temporary tables away.
        wait_until(
            lambda: not conn.execute(here, (name,)).rowcount, description="it to be gone"
        )
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
