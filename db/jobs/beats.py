"""The beats that there are, as they say themselves: one row for each start of one."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row

KEPT = timedelta(hours=1)  # after it was last heard of


@dataclass(frozen=True, slots=True)
class Beat:
    """One start of a beat. Seconds are by Postgres's clock."""

    id: UUID
    host: str
    pid: int
    started_at: datetime
    seen_at: datetime
    runs_s: float  # since it was started
    silent_s: float  # since its scheduler last looked


def report(conn: Connection, beat_id: UUID, host: str, pid: int) -> None:
    """This beat's scheduler has just looked at what is due."""
    conn.execute(
        """
        insert into beats (id, host, pid) values (%s, %s, %s)
        on conflict (id) do update set seen_at = now()
        """,
        (beat_id, host, pid),
    )


def forget_old(conn: Connection) -> None:
    """Rows of beats that have ended go; of one that is started again and again, too."""
    conn.execute("delete from beats where seen_at < now() - %s", (KEPT,))


def all_of_them(conn: Connection) -> list[Beat]:
    """Those that were heard of within an hour, the newest sign of life first."""
    with conn.cursor(row_factory=class_row(Beat)) as cur:
        return cur.execute(
            """
            select id, host, pid, started_at, seen_at,
                   extract(epoch from now() - started_at)::float as runs_s,
                   extract(epoch from now() - seen_at)::float as silent_s
              from beats where seen_at > now() - %s order by seen_at desc
            """,
            (KEPT,),
        ).fetchall()
