"""The ledger's own clean-up, safe to run twice or beside itself.

Each task goes through what may be due in pages (db/core/walks.py), the oldest first or project by
project, and commits each. Without a walk it does all that is due.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.types.json import Jsonb

from db.core.walks import Key, Walk
from db.jobs import messages
from db.projects import branches
from db.projects.branches import Dropped
from db.transcripts import appends, listings
from db.transcripts.listings import Held

ROWS = 500  # in a page, so that no transaction is long
PROJECTS = 50  # in a page of what is looked at project by project


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
           and period = (select period from ticks  -- by time: periods may have become longer
                          where name = %(name)s and ended_at is null order by at desc limit 1)
        """,
        {"name": name, "done": Jsonb(done)},
    )


def noted(conn: Connection, name: str) -> dict[str, Any]:
    """What the newest run of `name` that ended has written down; empty before the first."""
    row = conn.execute(
        """
        select result from ticks where name = %s and ended_at is not null
         order by at desc limit 1
        """,
        (name,),
    ).fetchone()
    return row[0] if row and row[0] else {}


def mark_stale(conn: Connection, age: timedelta, walk: Walk | None = None) -> int:
    """Note the sessions that were not used for so long. They stay resumable."""

    def page(_: Key | None) -> tuple[int, Key | None]:
        marked = conn.execute(STALE, {"age": age, "rows": ROWS}).rowcount
        return marked, [
            marked
        ] if marked == ROWS else None  # the key is that it is not stale yet

    return (walk or Walk()).go(page)


# Materialized: joined as a subquery it may be run again for each row, and then the limit is none.
STALE: LiteralString = """
    with old as materialized (
        select session_id from project_ai_session_metrics
         where last_used_at < now() - %(age)s::interval and stale_at is null
         order by last_used_at limit %(rows)s for no key update skip locked
    )
    update project_ai_session_metrics m set stale_at = now(), status = 'expired'
      from old where m.session_id = old.session_id"""


def archive_transitions(conn: Connection, age: timedelta, walk: Walk | None = None) -> int:
    """Move old transitions to the archive; the newest of each project and version stays.

    Months that the archive lacks are made first, for all that is old: what is the newest of
    its version may cease to be so while we look.
    """

    def page(after: Key | None) -> tuple[int, Key | None]:
        since, number = after or ("-infinity", 0)
        with conn.transaction():
            rows = conn.execute(
                OLD, {"age": age, "rows": ROWS, "since": since, "number": number}
            ).fetchall()
            for month in sorted({month for *_, month in rows}):
                conn.execute("select baton_archive_month(%s)", (month,))
            ids = [number for _, number, _ in rows]
            moved = conn.execute(ARCHIVE, {"ids": ids, "age": age}).rowcount
        return moved, [rows[-1][0], rows[-1][1]] if len(rows) == ROWS else None

    return (walk or Walk()).go(page)


OLD: LiteralString = """
    select created_at::text, id, date_trunc('month', created_at::timestamptz, 'UTC')
      from session_transitions
     where created_at < now() - %(age)s::interval
       and created_at >= %(since)s::timestamptz  -- for the index
       and (created_at, id) > (%(since)s::timestamptz, %(number)s::bigint)
     order by created_at, id limit %(rows)s"""

ARCHIVE: LiteralString = """
    with old as (
        delete from session_transitions t
         where t.id = any(%(ids)s) and t.created_at < now() - %(age)s::interval
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


def drop_branches(
    conn: Connection, unused: timedelta, walk: Walk | None = None
) -> list[Dropped]:
    """End branches that had no turn and no job for so long, the longest unused first; before them those
    of races that were cancelled."""
    walk = walk or Walk()
    dropped = branches.drop_lost(conn, walk.until)

    def page(after: Key | None) -> tuple[int, Key | None]:
        done, last = branches.drop_unused(conn, unused, limit=PROJECTS, after=after)
        dropped.extend(done)
        return len(done), last

    walk.go(page)
    return dropped


def prune_transcripts(
    conn: Connection,
    age: timedelta,
    walk: Walk | None = None,
    then: Callable[[list[Held]], int] = lambda _: 0,
) -> int:
    """Delete transcripts that no head and no version reaches, project by project; returns how
    many sessions. `then` is given each page's projects as they were before, and returns how many
    sessions it took away itself."""
    gone = 0

    def page(after: Key | None) -> tuple[int, Key | None]:
        nonlocal gone
        found = listings.projects(conn, after=after[0] if after else "", limit=PROJECTS)
        names = [one.project_id for one in found]
        pruned = prune_projects(conn, names, age)
        gone += pruned
        return pruned + then(found), [names[-1]] if len(found) == PROJECTS else None

    (walk or Walk()).go(page)
    return gone


def prune_projects(conn: Connection, projects: list[str], age: timedelta) -> int:
    """Delete the transcripts of these projects that nothing reaches; returns how many sessions."""
    gone, swept = 0, set[str]()
    for project_id, session_id in listings.unreachable(conn, projects, idle=age):
        if _prune(conn, project_id, session_id, age):
            gone += 1
            swept.add(project_id)
    for project_id in sorted(swept):
        _sweep(conn, project_id)
    return gone


def _prune(conn: Connection, project_id: str, session_id: str, age: timedelta) -> bool:
    """Delete one session, unless it has come to be named or written since it was found."""
    with conn.transaction():
        conn.execute(  # no head of the project moves until we have committed
            "select from projects where project_id = %s for no key update", (project_id,)
        )
        appends.lock(conn, project_id)
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
        return not needed and listings.forget(conn, project_id, session_id)


def _sweep(conn: Connection, project_id: str) -> None:
    swept = listings.SWEPT
    while swept == listings.SWEPT:
        with conn.transaction():
            swept = listings.sweep_entries(conn, project_id)


def clear_jobs(conn: Connection, age: timedelta, walk: Walk | None = None) -> dict[str, int]:
    """Delete whole chains that ended so long ago, with their turns; old ticks, sums of days and
    silent workers."""
    turned = 0

    def page(after: Key | None) -> tuple[int, Key | None]:
        nonlocal turned
        since, job_id = after or ("-infinity", str(UUID(int=0)))
        given = {"age": age, "rows": ROWS, "since": since, "id": job_id}
        with conn.transaction():
            row = conn.execute(CLEAR, given).fetchone()
            assert row
            jobs, turns, looked, *last = row
            # Behind their turns: until these are added up, their jobs say who pays (baton_count_gone).
            conn.execute("delete from jobs where id = any(%s)", (jobs,))
        turned += turns
        return len(jobs), last if looked == ROWS else None

    walk = walk or Walk()
    jobs = walk.go(page)
    ticks = conn.execute("delete from ticks where at < now() - %s", (age,)).rowcount
    conn.execute("delete from spent_by_day where day < (now() at time zone 'UTC')::date - 1")
    workers = conn.execute(
        "delete from workers where seen_at < now() - interval '1 day'"
    ).rowcount
    return {
        "jobs": jobs,
        "turns": turned,
        "ticks": ticks,
        "workers": workers,
        "messages": messages.clear(conn, until=walk.until),
    }


CLEAR: LiteralString = """
    with page as materialized (
        select id, chain_id, finished_at from jobs
         where finished_at < now() - %(age)s::interval
           and finished_at >= %(since)s::timestamptz  -- for the index
           and (finished_at, id) > (%(since)s::timestamptz, %(id)s::uuid)
         order by finished_at, id limit %(rows)s
    ), old as materialized (
        select chain_id from (select distinct chain_id from page) chains
         where not exists (select from jobs o
                            where o.chain_id = chains.chain_id
                              and (o.finished_at is null or o.untold
                                   or o.finished_at >= now() - %(age)s::interval))
           and not exists (select from webhooks w  -- it says what became of the job
                            where w.chain_id = chains.chain_id and w.state = 'waiting')
    ), gone as materialized (
        select j.id from jobs j join old using (chain_id)
         where j.finished_at < now() - %(age)s::interval and not j.untold
           for update of j
    ), told as (
        delete from webhooks w using old where w.chain_id = old.chain_id
    ), checked as (
        delete from checks using gone where checks.job_id = gone.id
    ), turned as (
        delete from turns using gone where turns.job_id = gone.id returning turns.id
    )
    select array(select id from gone), (select count(*) from turned), (select count(*) from page),
           last.finished_at::text, last.id::text
      from (select 1) one
      left join (select finished_at, id from page order by 1 desc, 2 desc limit 1) last on true"""
