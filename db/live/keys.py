"""Accounts and their API keys. A key is shown once; what is kept is its SHA-256. It may have an end."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import LiteralString

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row

from db.jobs.jobs import GIVEN

PREFIX = "bk_"
SCOPES = ("jobs", "voice", "operate")


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it may be shown: without itself."""

    id: int
    account_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    expires_at: datetime | None
    expired: bool


@dataclass(frozen=True, slots=True)
class Holder:
    """Who comes with a key. `ended`: when it did; it counts for nothing then."""

    account: str
    scopes: frozenset[str]
    ended: datetime | None


class Past(Exception):
    """A key would have ended before it is made."""


SHOWN: LiteralString = (
    "id, account_id, name, scopes, created_at, last_used_at, revoked_at, expires_at,"
    " coalesce(expires_at <= now(), false) as expired"
)


def digest(key: str) -> str:
    """What is kept of a key. It has 256 random bits, so no salt and no slow hash are needed."""
    return sha256(key.encode()).hexdigest()


def create(
    conn: Connection,
    account: str,
    name: str,
    scopes: list[str],
    until: datetime | timedelta | None = None,
) -> tuple[str, Key]:
    """A new key of the account, which is made if need be; the key itself, and its row. It ends at a
    moment, after a time, or never. Raises Past for an end that has passed."""
    key = PREFIX + secrets.token_urlsafe(32)
    with conn.transaction(), conn.cursor(row_factory=class_row(Key)) as cur:
        cur.execute("insert into accounts (id) values (%s) on conflict do nothing", (account,))
        row = cur.execute(
            "insert into api_keys (account_id, key_hash, name, scopes, expires_at)"
            " values (%s, %s, %s, %s, coalesce(%s::timestamptz, now() + %s::interval))"
            " returning " + SHOWN,
            (account, digest(key), name, scopes, *_end(until)),
        ).fetchone()
        assert row
        if row.expired:
            raise Past
    return key, row


def _end(
    until: datetime | timedelta | None,
) -> tuple[datetime | None, timedelta | None]:
    return (None, until) if isinstance(until, timedelta) else (until, None)


def known(conn: Connection, account: str | None = None) -> list[Key]:
    """The keys of an account, or of all, the newest first."""
    with conn.cursor(row_factory=class_row(Key)) as cur:
        return cur.execute(
            "select "
            + SHOWN
            + " from api_keys where %(account)s::text is null or account_id = %(account)s"
            " order by id desc limit 1000",
            {"account": account},
        ).fetchall()


def revoke(conn: Connection, key_id: int) -> Key | None:
    """End a key; None if there is none of that number."""
    with conn.cursor(row_factory=class_row(Key)) as cur:
        return cur.execute(
            "update api_keys set revoked_at = coalesce(revoked_at, now()) where id = %s"
            " returning " + SHOWN,
            (key_id,),
        ).fetchone()


HOLDER: LiteralString = """
    with found as (
        select id, account_id, scopes, last_used_at,
               case when expires_at <= now() then expires_at end as ended
          from api_keys
         where key_hash = %s and revoked_at is null
    ), noted as (  -- once a minute
        update api_keys k set last_used_at = now() from found f
         where k.id = f.id and f.ended is null
           and (f.last_used_at is null or f.last_used_at < now() - interval '1 minute')
    )
    select account_id, scopes, ended from found"""


async def holder(conn: AsyncConnection, key: str) -> Holder | None:
    """Who comes with a key, which is used just now; None: it is unknown or revoked."""
    row = await (await conn.execute(HOLDER, (digest(key),))).fetchone()
    return Holder(row[0], frozenset(row[1]), row[2]) if row else None


# Of a key that may ask for jobs, by its digest. No row: it is unknown, has ended, or may not.
MAY_ASK: LiteralString = """
    from api_keys k
     where k.key_hash = %(holder)s and k.revoked_at is null
       and coalesce(k.expires_at > now(), true) and 'jobs' = any(k.scopes)"""
# The job's id and state, and whether the key's use is noted: one statement, which commits by itself.
ENQUEUE: LiteralString = (
    "select made.id, baton_of_account(made.id, %(project)s, made.account_id), made.noted"
    " from (select k.account_id, baton_enqueue(" + GIVEN + ") as id,"
    " coalesce(k.last_used_at >= now() - interval '1 minute', false) as noted"
    + MAY_ASK
    + ") made"
)
# The place of the project that is asked for; `known`: it is there.
PLACE: LiteralString = (
    "select p.project_id is not null as known, p.workspace, p.workspace_tree is not null as kept,"
    " p.last_ai_session_id as head from (select k.id "
    + MAY_ASK
    + ") k left join projects p on p.project_id = %(project)s and p.user_id = %(user)s"
)
