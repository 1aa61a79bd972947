"""The workers that are online, as they say themselves."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg import Connection
from psycopg.rows import class_row


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker process group; `slots` jobs at a time."""

    id: str
    host: str
    pid: int
    slots: int
    box: str | None
    cli_version: str | None
    credential: str | None
    worker_id: str | None = None  # as its jobs name it; None: of a release that did not say
    seen_at: datetime | None = None  # Postgres's clock


def report(conn: Connection, worker: Worker) -> None:
    """Say that the worker is here. `seen_at` is Postgres's clock, whatever the worker's says."""
    conn.execute(
        """
        insert into workers (id, host, pid, slots, box, cli_version, credential, worker_id)
        values (%(id)s, %(host)s, %(pid)s, %(slots)s, %(box)s, %(cli_version)s, %(credential)s,
                %(worker_id)s)
        on conflict (id) do update
           set seen_at = now(), host = excluded.host, pid = excluded.pid,
               slots = excluded.slots, box = excluded.box,
               cli_version = excluded.cli_version, credential = excluded.credential,
               worker_id = excluded.worker_id
        """,
        {
            "id": worker.id,
            "host": worker.host,
            "pid": worker.pid,
            "slots": worker.slots,
            "box": worker.box,
            "cli_version": worker.cli_version,
            "credential": worker.credential,
            "worker_id": worker.worker_id,
        },
    )


def leave(conn: Connection, worker_id: str) -> None:
    """The worker goes: it takes no more messages."""
    conn.execute("delete from workers where id = %s", (worker_id,))


def online(conn: Connection, *, silent_after: timedelta) -> list[Worker]:
    """Workers that were heard of within `silent_after`."""
    with conn.cursor(row_factory=class_row(Worker)) as cur:
        return cur.execute(
            """
            select id, host, pid, slots, box, cli_version, credential, worker_id, seen_at from workers
             where seen_at > now() - %s order by id
            """,
            (silent_after,),
        ).fetchall()
