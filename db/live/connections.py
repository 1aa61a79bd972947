"""The registry of live connections: who is, or lately was, connected to which gateway."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row

SILENT = timedelta(seconds=90)  # a gateway notes its connections every 30 s


async def begin(
    conn: AsyncConnection,
    new: UUID,
    *,
    project: str,
    user: str,
    tab: str | None,
    gateway: str,
    most: int,
) -> bool:
    """Write down a new connection; false, with nothing written, where its user has `most` already
    in projects of the same account."""
    found = await conn.execute(
        "select baton_connect(%s, %s, %s, %s, %s, %s, %s)",
        (new, project, user, tab, gateway, most, SILENT),
    )
    return bool((await found.fetchone() or (False,))[0])


async def touch(conn: AsyncConnection, open_ones: list[UUID]) -> None:
    """These are still there."""
    await conn.execute(
        "update live_connections set last_active_at = now() where conn = any(%s)", (open_ones,)
    )


async def end(conn: AsyncConnection, which: UUID) -> None:
    """This one has gone."""
    await conn.execute(
        "update live_connections set status = 'disconnected', last_active_at = now()"
        " where conn = %s",
        (which,),
    )


def sweep(conn: Connection, kept: timedelta, limit: int) -> int:
    """Those of a gateway that died are expired, those that went `kept` ago are removed. How many."""
    expired = conn.execute(
        """
        with silent as (
            select conn from live_connections
             where status = 'active' and last_active_at < now() - %s::interval
             limit %s for update skip locked
        )
        update live_connections c set status = 'expired' from silent s where c.conn = s.conn
        """,
        (SILENT, limit),
    ).rowcount
    removed = conn.execute(
        """
        with old as (
            select conn from live_connections
             where status <> 'active' and last_active_at < now() - %s::interval
             limit %s for update skip locked
        )
        delete from live_connections c using old o where c.conn = o.conn
        """,
        (kept, limit),
    ).rowcount
    conn.execute("delete from signed_out where until < now()")
    return expired + removed


def known(
    conn: Connection, project: str | None = None, *, limit: int = 200
) -> list[dict[str, Any]]:
    """The registry, the newest first."""
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(
            """
            select conn, project_id, user_id, tab, gateway, status, created_at, last_active_at
              from live_connections
             where %(project)s::text is null or project_id = %(project)s
             order by status <> 'active', last_active_at desc limit %(limit)s
            """,
            {"project": project, "limit": limit},
        ).fetchall()


async def sign_out(conn: AsyncConnection, ticket: str, until: datetime) -> None:
    """This ticket, and the cookie that came of it, count no more."""
    await conn.execute(
        "insert into signed_out (id, until) values (%s, %s) on conflict do nothing",
        (ticket, until),
    )


async def signed_out(conn: AsyncConnection, ticket: str) -> bool:
    """Whether it was given back."""
    found = await conn.execute("select from signed_out where id = %s", (ticket,))
    return await found.fetchone() is not None
