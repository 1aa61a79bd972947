"""Practice calls: each move is one statement, which writes the row and its event or neither.

created ──► waiting ──► associated ──► active ──► ended      from each of them to ended
"""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

OPEN = ["created", "waiting", "associated", "active"]
# Written behind a statement that moves calls and returns their rows as `moved`.
TELL: LiteralString = """
    insert into call_events (call, seq, type, body)
    select call, event_seq, 'call.status_changed', jsonb_build_object(
               'status', status, 'sessionId', call, 'streamSid', stream_sid, 'reason', reason)
      from moved returning call"""
# One after the other: of two that count at once each would see room for one more.
LOCK: LiteralString = "select from accounts where id = %(account)s for no key update"
CREATE: LiteralString = (
    """
    with moved as (
        insert into calls (call, account_id, config, config_version, event_seq)
        select %(call)s, %(account)s, %(config)s, %(version)s, 1
         where (select count(*) from calls
                 where account_id = %(account)s and status <> 'ended') < %(most)s
        returning *
    )"""
    + TELL
)
MOVE: LiteralString = (
    """
    with moved as (
        update calls set status = %(to)s, event_seq = event_seq + 1, seen_at = now(),
               stream_sid = coalesce(%(stream)s, stream_sid)
         where call = %(call)s and status = any(%(from)s) returning *
    )"""
    + TELL
)
END: LiteralString = (
    """
    with moved as (
        update calls set status = 'ended', reason = %(reason)s, ended_at = now(),
               event_seq = event_seq + 1
         where call = %(call)s and status <> 'ended' returning *
    )"""
    + TELL
)
END_ALL: LiteralString = """
    with open_ones as (
        select call, status from calls where account_id = %(account)s and status <> 'ended'
           for update
    ), moved as (
        update calls c set status = 'ended', reason = 'reset', ended_at = now(),
               event_seq = event_seq + 1
          from open_ones o where c.call = o.call returning c.*, o.status as was
    ), told as (
        insert into call_events (call, seq, type, body)
        select call, event_seq, 'call.status_changed', jsonb_build_object(
                   'status', status, 'sessionId', call, 'streamSid', stream_sid, 'reason', reason)
          from moved
    )
    select call, was from moved"""
END_LATE: LiteralString = (
    """
    with late as (
        select call, case when status = 'active' then 'lost' else 'timeout' end as why from calls
         where (status = 'active' and seen_at < now() - %(silent)s::interval)
            or (status in ('created', 'waiting', 'associated')
                and created_at < now() - %(wait)s::interval)
         limit 100 for update skip locked
    ), moved as (
        update calls c set status = 'ended', reason = l.why, ended_at = now(),
               event_seq = event_seq + 1
          from late l where c.call = l.call and c.status <> 'ended' returning c.*
    )"""
    + TELL
)
NOTE: LiteralString = """
    with noted as (
        update calls set event_seq = event_seq + 1
         where call = %(call)s and status <> 'ended' returning call, event_seq
    )
    insert into call_events (call, seq, type, body)
    select call, event_seq, %(type)s, %(body)s from noted"""
CONFIGURE: LiteralString = """
    with taken as (
        update calls set config = %(config)s, config_version = %(version)s,
               event_seq = event_seq + 1
         where call = %(call)s and status <> 'ended'
           and (config_version < %(version)s
                or (config_version = %(version)s and applied_version < %(version)s
                    and config is distinct from %(config)s::jsonb))
        returning call, event_seq, config_version
    )
    insert into call_events (call, seq, type, body)
    select call, event_seq, 'config.received', jsonb_build_object('version', config_version)
      from taken"""
APPLY: LiteralString = """
    with applied as (
        update calls set applied_version = config_version, event_seq = event_seq + 1
         where call = %(call)s and status <> 'ended' and stream_sid is not null
           and applied_version < config_version
        returning call, event_seq, config_version, config
    ), told as (
        insert into call_events (call, seq, type, body)
        select call, event_seq, 'config.applied', jsonb_build_object('version', config_version)
          from applied
    )
    select config from applied"""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as it stands."""

    call: str
    account_id: str
    status: str
    reason: str | None
    config: Any
    config_version: int
    applied_version: int
    stream_sid: str | None
    event_seq: int


@dataclass(frozen=True, slots=True)
class Event:
    """One of a call's events."""

    seq: int
    type: str
    body: dict[str, Any]


async def create(
    conn: AsyncConnection, account: str, config: dict[str, Any] | None, most: int
) -> str | None:
    """A new call, whose name nobody can guess; None: the account has `most` open ones already."""
    name = secrets.token_urlsafe(18)
    values = {
        "call": name,
        "account": account,
        "config": None if config is None else Jsonb(config),
        "version": int(config is not None),
        "most": most,
    }
    async with conn.transaction():
        await conn.execute(LOCK, {"account": account})
        made = await conn.execute(CREATE, values)
    return name if made.rowcount else None


async def look(conn: AsyncConnection, call: str) -> Call | None:
    """The call; None: there is none."""
    async with conn.cursor(row_factory=class_row(Call)) as cur:
        await cur.execute(
            "select call, account_id, status, reason, config, config_version, applied_version,"
            " stream_sid, event_seq from calls where call = %s",
            (call,),
        )
        return await cur.fetchone()


async def heads(conn: AsyncConnection, calls: list[str]) -> dict[str, int]:
    """The number of the newest event of each."""
    found = await conn.execute(
        "select call, event_seq from calls where call = any(%s)", (calls,)
    )
    return {row[0]: row[1] for row in await found.fetchall()}


async def since(conn: AsyncConnection, call: str, seq: int) -> list[Event]:
    """The events after number `seq`, oldest first."""
    async with conn.cursor(row_factory=class_row(Event)) as cur:
        await cur.execute(
            "select seq, type, body from call_events where call = %s and seq > %s order by seq",
            (call, seq),
        )
        return await cur.fetchall()


async def move(
    conn: AsyncConnection, call: str, to: str, come_from: list[str], stream: str | None = None
) -> bool:
    """Move the call on, if it is where it should come from; whether it was."""
    values = {"call": call, "to": to, "from": come_from, "stream": stream}
    return (await conn.execute(MOVE, values)).rowcount == 1


async def end(conn: AsyncConnection, call: str, reason: str) -> bool:
    """End it; false: it had ended."""
    return (await conn.execute(END, {"call": call, "reason": reason})).rowcount == 1


async def end_all(conn: AsyncConnection, account: str) -> dict[str, str]:
    """End every call of the account: what each of them was."""
    found = await conn.execute(END_ALL, {"account": account})
    return {row[0]: row[1] for row in await found.fetchall()}


async def end_late(conn: AsyncConnection, wait: timedelta, silent: timedelta) -> list[str]:
    """End those for whom the other side did not come, and those whose gateway has died."""
    found = await conn.execute(END_LATE, {"wait": wait, "silent": silent})
    return [row[0] for row in await found.fetchall()]


async def note(conn: AsyncConnection, call: str, kind: str, body: dict[str, Any]) -> None:
    """Write an event of an open call."""
    await conn.execute(NOTE, {"call": call, "type": kind, "body": Jsonb(body)})


async def configure(
    conn: AsyncConnection, call: str, version: int, config: dict[str, Any]
) -> bool:
    """Take a configuration that is newer than what was applied; whether it is."""
    values = {"call": call, "version": version, "config": Jsonb(config)}
    return (await conn.execute(CONFIGURE, values)).rowcount == 1


async def apply(conn: AsyncConnection, call: str) -> dict[str, Any] | None:
    """The configuration, for whoever is the first to take it; None: there is nothing to apply."""
    found = await (await conn.execute(APPLY, {"call": call})).fetchone()
    return found[0] if found else None


async def touch(conn: AsyncConnection, call: str) -> None:
    """Its telephone is still there."""
    await conn.execute("update calls set seen_at = now() where call = %s", (call,))
