"""What operators ask of the ledger: rows for `baton chain`, `project`, `session`, `report`.

Rows are plain dicts: they are printed, or go out as JSON, under the names given here.
Costs are in USD, durations in milliseconds or seconds as their names say.
"""

from collections.abc import Sequence
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import dict_row

Row = dict[str, Any]


def moves(conn: Connection, project_id: str) -> list[Row]:
    """Every move of the project's head with what its turn used, oldest first."""
    return _rows(
        conn,
        """
        select c.id, c.created_at, c.source, c.reason, c.version_id, c.job_id,
               c.old_session_id, c.new_session_id, c.parent_session_id,
               m.input_tokens, m.cache_creation_tokens, m.cache_read_tokens, m.output_tokens,
               m.context_tokens, m.cost_usd, m.cost_estimated, m.duration_ms, m.num_turns
          from session_chain c
          left join project_ai_session_metrics m
            on m.session_id = c.new_session_id and c.source <> 'operator'
         where c.project_id = %s order by c.id
        """,
        (project_id,),
    )


def held(conn: Connection, job_id: UUID) -> Row:
    """What `jobs.Job` leaves out: the lease, a cancel that was asked for, the credential."""
    found = _rows(
        conn,
        """
        select worker_id, attempt, cancel_requested_at, credential, lease_until,
               extract(epoch from lease_until - now())::float as lease_left_s
          from jobs where id = %s
        """,
        (job_id,),
    )
    return found[0] if found else {}


def overview(conn: Connection, project_id: str) -> Row:
    """How much there is of a project, and whether it is in step."""
    return _rows(
        conn,
        """
        select (select sync_status from session_sync where project_id = %(p)s) as sync_status,
               (select count(*) from jobs
                 where project_id = %(p)s and finished_at is null) as open,
               (select count(*) from project_versions where project_id = %(p)s) as versions,
               (select count(*) from session_chain where project_id = %(p)s) as moves,
               (select coalesce(sum(cost_usd), 0) from project_ai_session_metrics
                 where project_id = %(p)s) as cost_usd,
               (select count(*) from transcript_sessions
                 where project_id = %(p)s and subpath = '') as transcripts,
               (select coalesce(sum(bytes), 0) from transcript_batches
                 where project_id = %(p)s) as transcript_bytes
        """,
        {"p": project_id},
    )[0]


def session(conn: Connection, session_id: str) -> Row | None:
    """The registry's row of a session, and whether it is a head; None if it is unknown."""
    found = _rows(
        conn,
        """
        select m.*, exists (select from projects p where p.project_id = m.project_id
                               and p.last_ai_session_id = m.session_id) as is_head
          from project_ai_session_metrics m where session_id = %s
        """,
        (session_id,),
    )
    # Names and text of the project's files are for digests.
    return {k: v for k, v in found[0].items() if not k.startswith("digest_")} if found else None


def bar(conn: Connection, session_id: str) -> bool:
    """Never resume this session again, as an operator says. False: it already is so."""
    return (
        conn.execute(
            """
            update project_ai_session_metrics set is_resumable = false
             where session_id = %s and is_resumable
            """,
            (session_id,),
        ).rowcount
        == 1
    )


def attempts_on(conn: Connection, session_id: str) -> list[Row]:
    """Each time the session was looked at to be resumed, the newest first."""
    return _rows(
        conn,
        """
        select at, job_id, step, outcome, reason from session_resume_attempts
         where session_id = %s order by id desc limit 50
        """,
        (session_id,),
    )


def sync(conn: Connection, projects: Sequence[str]) -> list[Row]:
    """Each of the projects with its head, its newest version's session, and whether they agree;
    those that do not first."""
    return _rows(
        conn,
        """
        select * from session_sync where project_id = any(%s)
         order by sync_status = 'SYNCED', project_id
        """,
        (list(projects),),
    )


def moved_last(conn: Connection, most: int) -> list[str]:
    """The projects whose heads moved last, of the newest moves of all."""
    rows = conn.execute(
        """
        select project_id, max(created_at) as moved
          from (select project_id, created_at from session_transitions
                 order by created_at desc limit %(moves)s) newest
         group by 1 order by 2 desc limit %(most)s
        """,
        {"moves": 4 * most, "most": most},
    )
    return [project_id for project_id, _ in rows]


COUNTED = 10_000  # open jobs; more are estimated


def states(conn: Connection) -> tuple[Row, bool]:
    """How many jobs are in each state that is not the end, and how many were set aside; and
    whether those that wait are so many that the planner was asked for about how many."""
    none = {"queued": 0, "running": 0, "parked": 0, "quarantined": 0}
    given = {"most": COUNTED + 1}
    counted = none | dict(conn.execute(STATES, given).fetchall())
    if sum(counted.values()) - counted["quarantined"] <= COUNTED:
        return counted, False
    exact = dict(conn.execute(FEW, given).fetchall())
    waiting = _about(conn, WAITING)
    return {**none, **exact, "queued": max(waiting - exact.get("parked", 0), 0)}, True


# By the index: whatever has ended lies before them in the table.
STATES: LiteralString = """
    select state, count(*)
      from (select state from jobs where finished_at is null order by pos limit %(most)s) open
     group by 1
    union all
    select 'quarantined', count(*)
      from (select from jobs where state = 'quarantined' limit %(most)s) aside"""
FEW: LiteralString = """
    select 'running', count(*) from jobs where state = 'running'
    union all
    select 'parked', count(*)
      from (select from jobs where state = 'parked' limit %(most)s) parked
    union all
    select 'quarantined', count(*)
      from (select from jobs where state = 'quarantined' limit %(most)s) aside"""
WAITING: LiteralString = "select from jobs where state in ('queued', 'parked')"


def _about(conn: Connection, query: LiteralString) -> int:
    """How many rows the planner expects: good enough where they are many."""
    row = conn.execute("explain (format json) " + query).fetchone()
    return int(row[0][0]["Plan"]["Plan Rows"]) if row else 0


def oldest_waiting(conn: Connection) -> Row | None:
    """The due job that has waited longest, with its seconds since it was due."""
    found = _rows(
        conn,
        """
        select id, project_id, kind, state, error_class,
               extract(epoch from now() - greatest(run_at, created_at))::float as waits_s
          from jobs where state = 'queued' and run_at <= now()
         order by greatest(run_at, created_at) limit 1
        """,
        None,
    )
    return found[0] if found else None


def running(conn: Connection) -> list[Row]:
    """What runs, with the seconds that are left of its lease; below zero it is to be rescued."""
    return _rows(
        conn,
        """
        select id, project_id, kind, attempts, host, pid, agent_pid,
               extract(epoch from lease_until - now())::float as lease_left_s,
               extract(epoch from now() - claimed_at)::float as runs_s
          from jobs where state = 'running' order by claimed_at
        """,
        None,
    )


def quarantined(conn: Connection) -> list[Row]:
    """What was set aside after killing its workers, the newest first."""
    return _rows(
        conn,
        """
        select id, project_id, kind, rescues, finished_at, error from jobs
         where state = 'quarantined' order by finished_at desc limit 20
        """,
        None,
    )


def on_disk(conn: Connection) -> int:
    """Bytes that transcripts take on the disk: shared, compressed, with their indexes."""
    row = conn.execute(
        """
        select sum(pg_total_relation_size(c.oid))::bigint from pg_class c
         where c.relkind = 'r' and c.relname like 'transcript%'
           and pg_table_is_visible(c.oid)
        """
    ).fetchone()
    return row[0] if row else 0


def ticks(conn: Connection) -> list[Row]:
    """The newest run of each periodic job, with the seconds since."""
    return _rows(
        conn,
        """
        with recursive names as (
            (select name from ticks order by name limit 1)
            union all
            select (select t.name from ticks t where t.name > names.name order by 1 limit 1)
              from names where names.name is not null
        )
        select t.name, t.at, t.ended_at, t.result,
               extract(epoch from now() - t.at)::float as ago_s
          from names cross join lateral (
               select * from ticks where ticks.name = names.name order by at desc limit 1) t
         order by t.name
        """,
        None,
    )


def owed(conn: Connection) -> Row:
    """What tells whether a relay works: for how long a job was not looked at that is due, and
    whether some are ready and wait for a slot."""
    return _rows(
        conn,
        """
        select (select extract(epoch from now() - min(publish_after))::float from jobs
                 where state in ('queued', 'parked') and not ready
                   and publish_after <= now()) as overdue_s,
               exists (select from user_turns where priority is not null) as ready
        """,
        None,
    )[0]


def _rows(conn: Connection, query: LiteralString, params: Any) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(query, params).fetchall()
