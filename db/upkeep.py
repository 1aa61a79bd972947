"""The ledger's own clean-up: each a statement or two, safe to run twice or beside itself."""

from datetime import timedelta
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.types.json import Jsonb

from db import branches, messages, transcript_upkeep, transcripts
from db.branches import Dropped

BATCH = 200  # sessions pruned, or branches dropped, in one run, so that no run is long


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


def end_tick(conn: Connection, name: str, done: dict[str, Any]) -> None:
    """Write down what the newest run of `name` did."""
    conn.execute(
        """
        update ticks set ended_at = now(), result = %(done)s
         where name = %(name)s and ended_at is null
           and period = (select max(period) from ticks
                          where name = %(name)s and ended_at is null)
        """,
        {"name": name, "done": Jsonb(done)},
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
    """Move old transitions to the archive; the newest of each project and version stays.

    Months that the archive lacks are made first, for all that is old: what is the newest of
    its version may cease to be so while we look.
    """
    with conn.transaction():
        conn.execute(
            """
            select baton_archive_month(month)
              from (select distinct date_trunc('month', created_at::timestamptz, 'UTC') as month
                      from session_transitions where created_at < now() - %s) months
            """,
            (age,),
        )
        return conn.execute(ARCHIVE, (age,)).rowcount


ARCHIVE: LiteralString = """
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
            source, reason, job_id, created_at, tree)
    select id, project_id, version_id, old_session_id, new_session_id, parent_session_id,
           source, reason, job_id, created_at, tree from old"""


def drop_branches(conn: Connection, unused: timedelta) -> list[Dropped]:
    """End branches that had no turn and no job for so long, the longest unused first."""
    return branches.drop_unused(conn, unused, limit=BATCH)


def prune_transcripts(conn: Connection, age: timedelta) -> int:
    """Delete transcripts that no head and no version reaches; returns how many sessions."""
    found = transcript_upkeep.unreachable(conn, idle=age, limit=BATCH)
    gone = sum(_prune(conn, project_id, session_id, age) for project_id, session_id in found)
    for project_id in sorted({project for project, _ in found}):
        _sweep(conn, project_id)
    return gone


def _prune(conn: Connection, project_id: str, session_id: str, age: timedelta) -> bool:
    """Delete one session, unless it has come to be named or written since it was found."""
    with conn.transaction():
        conn.execute(  # no head of the project moves until we have committed
            "select from projects where project_id = %s for no key update", (project_id,)
        )
        transcripts.lock(conn, project_id)
        needed = conn.execute(
            """
            select from sessions_kept where project_id = %(project)s
                                        and session_id = %(session)s
            union all
            select from transcript_sessions
             where project_id = %(project)s and session_id = %(session)s
               and updated_at >= clock_timestamp() - %(age)s
            """,
            {"project": project_id, "session": session_id, "age": age},
        ).rowcount
        return not needed and transcript_upkeep.forget(conn, project_id, session_id)


def _sweep(conn: Connection, project_id: str) -> None:
    swept = transcript_upkeep.SWEPT
    while swept == transcript_upkeep.SWEPT:
        with conn.transaction():
            swept = transcript_upkeep.sweep_entries(conn, project_id)


def clear_jobs(conn: Connection, age: timedelta) -> dict[str, int]:
    """Delete whole chains that ended so long ago, with their turns; old ticks; silent workers."""
    row = conn.execute(
        """
        with gone as (
            delete from jobs j
             where j.finished_at < now() - %(age)s and not j.untold
               and not exists (select from jobs o
                                where o.chain_id = j.chain_id
                                  and (o.finished_at is null or o.untold
                                       or o.finished_at >= now() - %(age)s))
            returning id
        ), turned as (
            delete from turns where job_id in (select id from gone) returning id
        )
        select (select count(*) from gone), (select count(*) from turned)
        """,
        {"age": age},
    ).fetchone()
    assert row
    ticks = conn.execute("delete from ticks where at < now() - %(age)s", {"age": age}).rowcount
    workers = conn.execute(
        "delete from workers where seen_at < now() - interval '1 day'"
    ).rowcount
    return {
        "jobs": row[0],
        "turns": row[1],
        "ticks": ticks,
        "workers": workers,
        "messages": messages.clear(conn),
    }
