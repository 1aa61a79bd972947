"""The ledger's own clean-up: each a statement or two, safe to run twice or beside itself."""

from datetime import timedelta
from typing import Any

from psycopg import Connection
from psycopg.types.json import Jsonb

from db import transcript_upkeep

BATCH = 200  # sessions pruned in one run, so that no run is long


def claim_tick(conn: Connection, name: str, every: timedelta) -> bool:
    """Whether this period of the job `name` is ours to do: to one asker, once."""
    return (
        conn.execute(
            """
            insert into ticks (name, period)
            values (%(name)s, floor(extract(epoch from now()) / %(every)s))
            on conflict do nothing
            """,
            {"name": name, "every": every.total_seconds()},
        ).rowcount
        == 1
    )


def end_tick(conn: Connection, name: str, every: timedelta, done: dict[str, Any]) -> None:
    """Write down what the period's run did."""
    conn.execute(
        """
        update ticks set ended_at = now(), result = %(done)s
         where name = %(name)s and ended_at is null
           and period >= floor(extract(epoch from now()) / %(every)s) - 1
        """,
        {"name": name, "every": every.total_seconds(), "done": Jsonb(done)},
    )


def mark_stale(conn: Connection, age: timedelta) -> int:
    """Note the sessions that were not used for so long. They stay resumable."""
    return conn.execute(
        """
        update project_ai_session_metrics set stale_at = now(), status = 'expired'
         where last_used_at < now() - %s and stale_at is null
        """,
        (age,),
    ).rowcount


def archive_transitions(conn: Connection, age: timedelta) -> int:
    """Move old transitions to the archive; the newest of each project and version stays."""
    return conn.execute(
        """
        with old as (
            delete from session_transitions t
             where t.created_at < now() - %s
               and exists (select from session_transitions n
                            where n.project_id = t.project_id and n.id > t.id)
               and (t.version_id is null or exists (
                    select from session_transitions n
                     where n.project_id = t.project_id and n.version_id = t.version_id
                       and n.id > t.id))
            returning *
        )
        insert into session_transitions_archive
               (id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
                source, reason, job_id, created_at)
        select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
               source, reason, job_id, created_at from old
        """,
        (age,),
    ).rowcount


def prune_transcripts(conn: Connection, age: timedelta) -> int:
    """Delete transcripts that no head and no version reaches; returns how many sessions."""
    gone = transcript_upkeep.unreachable(conn, idle=age, limit=BATCH)
    for project_id, session_id in gone:
        with conn.transaction():
            transcript_upkeep.delete(conn, project_id, session_id)
            conn.execute(
                """
                update project_ai_session_metrics set is_resumable = false, status = 'expired'
                 where session_id = %s
                """,
                (session_id,),
            )
    for project_id in sorted({project for project, _ in gone}):
        with conn.transaction():
            transcript_upkeep.sweep_entries(conn, project_id)
    return len(gone)


def clear_jobs(conn: Connection, age: timedelta) -> dict[str, int]:
    """Delete whole chains that ended so long ago, with their turns; old ticks; silent workers."""
    jobs = conn.execute(
        """
        with gone as (
            delete from jobs j
             where j.finished_at < now() - %(age)s
               and not exists (select from jobs o
                                where o.chain_id = j.chain_id
                                  and (o.finished_at is null
                                       or o.finished_at >= now() - %(age)s))
            returning id
        )
        delete from turns where job_id in (select id from gone)
        """,
        {"age": age},
    ).rowcount
    ticks = conn.execute("delete from ticks where at < now() - %(age)s", {"age": age}).rowcount
    workers = conn.execute(
        "delete from workers where seen_at < now() - interval '1 day'"
    ).rowcount
    return {"turns": jobs, "ticks": ticks, "workers": workers}
