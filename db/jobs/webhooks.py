"""The outbox of webhooks: what is due, who sends it, and what came of it.

The row is written by a trigger in the commit that ends the chain (db/functions/webhooks.sql). Whoever
sends one holds it for a while; if they die, it is anybody's again. So each is sent at least once, always
under the same id.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row, dict_row

AT_ONCE = 4  # on their way to one host, so that one which hangs leaves room for others
HOLD = timedelta(minutes=1)  # for which a sender has one; far longer than sending takes


@dataclass(frozen=True, slots=True)
class Due:
    """One that is ours to send now. `tries`: with this one."""

    chain_id: UUID
    url: str
    host: str
    age: timedelta
    tries: int


def take(conn: Connection, many: int) -> list[Due]:
    """Up to so many that are due, for this sender. Any number of senders may ask at once."""
    with conn.cursor(row_factory=class_row(Due)) as cur:
        return cur.execute(TAKE, {"many": many, "at_once": AT_ONCE, "hold": HOLD}).fetchall()


# One step an entry of the index `webhooks_due`, not all that waits. The last is null.
HOSTS: LiteralString = """
    hosts as (
        select min(host) as host from webhooks where state = 'waiting'
         union all
        select (select min(w.host) from webhooks w where w.state = 'waiting' and w.host > h.host)
          from hosts h where h.host is not null
    )"""
TAKE: LiteralString = (
    "with recursive"
    + HOSTS
    + """, due as (
        select w.chain_id from hosts h
         cross join lateral (
            select chain_id from webhooks
             where state = 'waiting' and host = h.host and try_at <= now()
               and (held_until is null or held_until <= now())
             order by try_at
             limit greatest(0, %(at_once)s - (
                select count(*) from webhooks o
                 where o.state = 'waiting' and o.host = h.host and o.held_until > now()))
               for update skip locked) w
         limit %(many)s
    )
    update webhooks w set held_until = now() + %(hold)s, tries = w.tries + 1
     where w.chain_id = any(array(select chain_id from due))
    returning w.chain_id, w.url, w.host, now() - w.since as age, w.tries"""
)


def delivered(conn: Connection, one: Due, status: int) -> None:
    """It was taken: nothing more is sent, also where another sender has it by now."""
    conn.execute(
        """
        update webhooks set state = 'delivered', ended_at = now(), held_until = null,
               status = %s, error = null
         where chain_id = %s and state <> 'delivered'
        """,
        (status, one.chain_id),
    )


def failed(
    conn: Connection, one: Due, error: str, status: int | None, again_in: timedelta | None
) -> None:
    """It was not taken: it is tried again then, or (None) given up."""
    conn.execute(
        """
        update webhooks
           set state = case when %(again)s::interval is null then 'given_up' else 'waiting' end,
               ended_at = case when %(again)s::interval is null then now() end,
               try_at = now() + coalesce(%(again)s, interval '0'), held_until = null,
               status = %(status)s, error = %(error)s
         where chain_id = %(id)s and state = 'waiting' and tries = %(tries)s
        """,
        {
            "again": again_in,
            "status": status,
            "error": error,
            "id": one.chain_id,
            "tries": one.tries,
        },
    )


def again(conn: Connection) -> int:
    """All that were given up are tried for a day more. Returns how many."""
    return conn.execute(
        """
        update webhooks set state = 'waiting', since = now(), try_at = now(), ended_at = null
         where state = 'given_up'
        """
    ).rowcount


def undelivered(conn: Connection, *, limit: int = 200) -> list[dict[str, Any]]:
    """What was not delivered, the newest first."""
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(
            """
            select chain_id as chain, project_id as project, user_id as user, url, state, since,
                   tries, case when state = 'waiting' then try_at end as try_at,
                   ended_at as given_up_at, status, error
              from webhooks where state <> 'delivered' order by since desc limit %s
            """,
            (limit,),
        ).fetchall()


@dataclass(frozen=True, slots=True)
class Standing:
    """What was not delivered. `overdue_s`: for how long the one that is due longest has been. The rest is
    of the newest only: `failing` were tried in vain, to be tried again; `host`, `error`: of the newest
    that failed."""

    failing: int
    given_up: int
    overdue_s: float | None
    host: str | None
    error: str | None


def standing(conn: Connection, *, limit: int = 1000) -> Standing:
    """How it is with those that were not delivered; of those given up, the last day's."""
    with conn.cursor(row_factory=class_row(Standing)) as cur:
        found = cur.execute(STANDING, (limit,)).fetchone()
    assert found is not None, "an aggregate has a row"
    return found


STANDING: LiteralString = (
    "with recursive"
    + HOSTS
    + """
    select count(*) filter (where state = 'waiting' and error is not null) as failing,
           count(*) filter (where state = 'given_up' and ended_at > now() - interval '1 day')
               as given_up,
           (select extract(epoch from max(now() - w.try_at))::float8 from hosts h
             cross join lateral (
                select try_at from webhooks
                 where state = 'waiting' and host = h.host and try_at < now()
                   and (held_until is null or held_until <= now())
                 order by try_at limit 1) w) as overdue_s,
           (array_agg(host order by since desc) filter (where error is not null))[1] as host,
           (array_agg(error order by since desc) filter (where error is not null))[1] as error
      from (select * from webhooks where state <> 'delivered' order by since desc limit %s) newest"""
)
