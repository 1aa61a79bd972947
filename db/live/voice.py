"""Voice sessions as they are kept, and the credit of accounts. Asked for by account and session:
another account's row counts as not there."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

SAVE: LiteralString = """
    insert into sessions (account_id, session_id, type, data, items)
    values (%(account)s, %(session)s, %(type)s, %(data)s, %(items)s)
    on conflict (account_id, session_id) do update
       set type = case when excluded.data is null then sessions.type else excluded.type end,
           data = coalesce(excluded.data, sessions.data),
           items = excluded.items, updated_at = now()"""
CHARGE: LiteralString = """
    with new as (
        insert into voice_charges (id, account_id, session_id, tokens)
        values (%(id)s, %(account)s, %(session)s, %(tokens)s)
        on conflict do nothing returning tokens
    )
    update accounts a
       set token_remaining = greatest(a.token_remaining - new.tokens, 0),
           topup_remaining =
               greatest(a.topup_remaining - greatest(new.tokens - a.token_remaining, 0), 0)
      from new where a.id = %(account)s and a.token_remaining is not null"""

GIVE: LiteralString = """
    update accounts
       set token_remaining = case when %(unlimited)s then null
                                  else coalesce(%(tokens)s::bigint, token_remaining) end,
           topup_remaining = topup_remaining + %(add)s::bigint
     where id = %(account)s
    returning id as account, token_remaining as tokens, topup_remaining as topup"""

OLD: tuple[LiteralString, ...] = (
    """
    with old as (
        select account_id, session_id from sessions where updated_at < now() - %(kept)s::interval
         limit %(limit)s for update skip locked
    )
    delete from sessions s using old o
     where (s.account_id, s.session_id) = (o.account_id, o.session_id)""",
    """
    with old as (
        select id from voice_charges where at < now() - %(kept)s::interval
         limit %(limit)s for update skip locked
    )
    delete from voice_charges c using old o where c.id = o.id""",
    """
    with old as (
        select call from calls where status = 'ended' and ended_at < now() - %(kept)s::interval
         limit %(limit)s for update skip locked
    ), told as (
        delete from call_events e using old o where e.call = o.call
    )
    delete from calls c using old o where c.call = o.call""",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a session. `data` is unchecked: it may be of an older Baton."""

    data: Any  # the session.update to replay; None: there is none
    items: Any  # the conversation's items, the oldest first


async def load(conn: AsyncConnection, account: str, session: str) -> Kept | None:
    """The account's session; None: there is none."""
    async with conn.cursor(row_factory=class_row(Kept)) as cur:
        await cur.execute(
            "select data, items from sessions where account_id = %s and session_id = %s",
            (account, session),
        )
        return await cur.fetchone()


async def save(
    conn: AsyncConnection,
    account: str,
    session: str,
    data: dict[str, Any] | None,
    items: list[dict[str, Any]],
) -> None:
    """Keep it as it is now. Without `data` the configuration that is kept stays."""
    await conn.execute(
        SAVE,
        {
            "account": account,
            "session": session,
            "type": data["session"]["type"] if data else "realtime",
            "data": Jsonb(data) if data else None,
            "items": Jsonb(items),
        },
    )


async def charge(
    conn: AsyncConnection, number: UUID, account: str, session: str, tokens: int
) -> int | None:
    """Take the tokens of a response, once for each `number`; what is left, None: no limit."""
    await conn.execute(
        CHARGE, {"id": number, "account": account, "session": session, "tokens": tokens}
    )
    return await left(conn, account)


async def left(conn: AsyncConnection, account: str) -> int | None:
    """The tokens that the account may still use; None: no limit."""
    found = await conn.execute(
        "select token_remaining + topup_remaining from accounts where id = %s", (account,)
    )
    row = await found.fetchone()
    return row[0] if row else None


@dataclass(frozen=True, slots=True)
class Credit:
    """What an account may still use. `tokens`: None: there is no limit."""

    account: str
    tokens: int | None
    topup: int


def credit(
    conn: Connection,
    account: str,
    *,
    tokens: int | None = None,
    add: int = 0,
    unlimited: bool = False,
) -> Credit | None:
    """What the account has left, after its tokens were set, or its top-up was added to, or its
    limit was taken away; None: there is no such account."""
    with conn.cursor(row_factory=class_row(Credit)) as cur:
        return cur.execute(
            GIVE,
            {"account": account, "tokens": tokens, "add": add, "unlimited": unlimited},
        ).fetchone()


def sweep(conn: Connection, kept: timedelta, limit: int) -> int:
    """Remove sessions, charges and calls that are older, so many of each; how many went."""
    return sum(conn.execute(each, {"kept": kept, "limit": limit}).rowcount for each in OLD)
