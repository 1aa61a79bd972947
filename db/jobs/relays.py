"""The relays that live, as they say themselves: what tells a busy one from none at all."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import Connection
from psycopg.rows import class_row

FORGOTTEN_AFTER = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Relay:
    """One relay process; `boot` and `pid` name it on its host (worker/process/identity.py). `silent_s`:
    seconds since it was heard of, by Postgres's clock."""

    id: str
    host: str
    boot: str
    pid: int
    seen_at: datetime
    silent_s: float


def report(conn: Connection, *, relay_id: str, host: str, boot: str, pid: int) -> None:
    """Say that the relay is here, and forget those that went long ago without a word."""
    conn.execute(
        """
        with gone as (delete from relays where seen_at < now() - %(forgotten)s)
        insert into relays (id, host, boot, pid) values (%(id)s, %(host)s, %(boot)s, %(pid)s)
            on conflict (id) do update set seen_at = now()
        """,
        {
            "id": relay_id,
            "host": host,
            "boot": boot,
            "pid": pid,
            "forgotten": FORGOTTEN_AFTER,
        },
    )


def leave(conn: Connection, relay_id: str) -> None:
    """The relay goes."""
    conn.execute("delete from relays where id = %s", (relay_id,))


def known(conn: Connection) -> list[Relay]:
    """Every relay that was heard of and did not say that it goes, the latest first."""
    with conn.cursor(row_factory=class_row(Relay)) as cur:
        return cur.execute(
            """
            select id, host, boot, pid, seen_at,
                   extract(epoch from now() - seen_at)::float as silent_s
              from relays order by seen_at desc
            """
        ).fetchall()
