"""Who the processes of `baton up` are in the embedded Postgres: a login that is in baton_worker, and
may change no table's shape (docs/security.md, Roles). A Postgres of somebody else's has the login
that DATABASE_URL names."""

from contextlib import suppress
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
from psycopg import errors, sql

from db.core.roles import WORKER
from dev.stack import passwords
from dev.stack.noted import Services

LOGIN = "baton_fleet"


def is_ours(running: Services) -> bool:
    """Whether the Postgres was started here."""
    return running.database_url in (one.url for one in running.embedded)


def database_url(home: Path, running: Services) -> str:
    """What the processes are given. The roles are there (`migrate --roles`), or it is not ours."""
    if not is_ours(running):
        return running.database_url
    password = passwords.kept(home / "postgres" / "fleet-password")
    with psycopg.connect(running.database_url, autocommit=True) as conn:
        with suppress(errors.DuplicateObject):  # from the last time
            conn.execute(sql.SQL("create role {} login").format(sql.Identifier(LOGIN)))
        statements: tuple[LiteralString, ...] = (
            "alter role {login} password {password}",
            "grant {role} to {login}",
        )
        for statement in statements:
            conn.execute(
                sql.SQL(statement).format(
                    login=sql.Identifier(LOGIN),
                    role=sql.Identifier(WORKER),
                    password=sql.Literal(password),
                )
            )
    parts = urlsplit(running.database_url)
    where = f"{LOGIN}:{password}@{parts.hostname}:{parts.port}"
    return parts._replace(netloc=where).geturl()
