"""What operators ask of the ledger: rows for `baton chain`, `project`, `session`, `report`.

Rows are plain dicts: they are printed, or go out as JSON, under the names given here.
Costs are in USD, durations in milliseconds or seconds as their names say.
"""

from datetime import timedelta
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


def open_jobs(conn: Connection, project_id: str) -> list[Row]:
    """What is not finished of a project, in the order in which it will run."""
    return _rows(
        conn,
        """
        select id, kind, lane, state, attempt, attempts, run_at, host, boot, pid, pid_started,
               credential, error_class, error, lease_until < now() as lease_over,
               extract(epoch from lease_until - now())::float as lease_left_s
          from jobs where project_id = %s and finished_at is null
         order by state <> 'running', (started_at is not null or id <> chain_id) desc, pos
        """,
        (project_id,),
    )


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
    """Never resume this session again, as an operator says (R163). False: it already is so."""
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


def sync(conn: Connection) -> list[Row]:
    """Each project with its head, its newest version's session, and whether they agree (R091)."""
    return _rows(
        conn, "select * from session_sync order by sync_status = 'SYNCED', project_id", None
    )


def resumed(conn: Connection, period: timedelta) -> list[Row]:
    """How the turns of each day began: view resume_turns, counted by day and way."""
    return _rows(
        conn,
        """
        select (created_at at time zone 'UTC')::date as day, began, count(*) as turns
          from resume_turns where created_at > now() - %s
         group by 1, 2 order by 1, 2
        """,
        (period,),
    )


def resume_reasons(conn: Connection, period: timedelta) -> list[Row]:
    """Why sessions were not resumed, or failed when they were; and why turns began fresh."""
    return _rows(
        conn,
        """
        select * from (
            select outcome as what, reason, count(*) as times, max(at) as latest
              from resume_failures where at > now() - %(period)s group by 1, 2
            union all
            select 'began ' || began, coalesce(reason, 'dropped'), count(*), max(created_at)
              from resume_turns
             where began in ('fallback', 'policy', 'older') and created_at > now() - %(period)s
             group by 1, 2
        ) found order by times desc, what, reason
        """,
        {"period": period},
    )


def costs(conn: Connection, period: timedelta, project_id: str | None = None) -> list[Row]:
    """What turns cost, by project, kind of job and source of the transition."""
    return _rows(
        conn,
        """
        select project_id, kind, source, count(*) as turns, sum(cost_usd) as cost_usd,
               bool_or(cost_estimated) as estimated, sum(duration_ms)::bigint as duration_ms,
               sum(input_tokens + cache_creation_tokens)::bigint as new_tokens,
               sum(cache_read_tokens)::bigint as cached_tokens,
               sum(output_tokens)::bigint as output_tokens
          from turn_costs
         where created_at > now() - %(period)s
           and (%(project)s::text is null or project_id = %(project)s)
         group by 1, 2, 3 order by 1, sum(cost_usd) desc, 2, 3
        """,
        {"period": period, "project": project_id},
    )


def wasted(conn: Connection, period: timedelta, project_id: str | None = None) -> Row:
    """What turns cost that came to nothing. Kept as long as finished jobs are."""
    return _rows(
        conn,
        """
        select count(*) as turns, coalesce(sum(cost_usd), 0) as cost_usd,
               coalesce(bool_or(cost_estimated), false) as estimated
          from turns
         where outcome in ('failed', 'abandoned') and started_at > now() - %(period)s
           and (%(project)s::text is null or project_id = %(project)s)
        """,
        {"period": period, "project": project_id},
    )[0]


def samples(conn: Connection, period: timedelta, project_id: str | None = None) -> list[Row]:
    """Build turns that resumed, that are the control sample, and that began fresh otherwise.

    Means over a turn; `cached_share` is that of the tokens read from the prompt cache.
    """
    return _rows(
        conn,
        """
        select case when resumed then 'resumed' when reason = 'control' then 'control'
                    else 'fresh' end as sample,
               count(*) as turns, avg(cost_usd) as cost_usd, avg(duration_ms) as duration_ms,
               percentile_cont(0.5) within group (order by duration_ms) as duration_ms_p50,
               sum(cache_read_tokens)::float
                 / nullif(sum(input_tokens + cache_creation_tokens + cache_read_tokens), 0)
                 as cached_share,
               bool_or(cost_estimated) as estimated
          from turn_costs
         where kind = 'build' and created_at > now() - %(period)s
           and (%(project)s::text is null or project_id = %(project)s)
         group by 1 order by 1
        """,
        {"period": period, "project": project_id},
    )


def states(conn: Connection) -> Row:
    """How many jobs are in each state that is not the end; and of those that were set aside."""
    rows = conn.execute(
        """
        select state, count(*) from jobs
         where finished_at is null or state = 'quarantined' group by 1
        """
    ).fetchall()
    return {"queued": 0, "running": 0, "parked": 0, "quarantined": 0, **dict(rows)}


def oldest_waiting(conn: Connection) -> Row | None:
    """The due job that has waited longest, with its seconds since it was due."""
    found = _rows(
        conn,
        """
        select id, project_id, kind, state, error_class,
               extract(epoch from now() - run_at)::float as waits_s
          from jobs where state = 'queued' and run_at <= now()
         order by run_at limit 1
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


def session_ages(conn: Connection) -> list[Row]:
    """How old the heads are: since each was last used, in steps."""
    return _rows(
        conn,
        """
        with heads as (
            select now() - coalesce(m.last_used_at, p.last_ai_session_updated_at) as age
              from projects p
              left join project_ai_session_metrics m on m.session_id = p.last_ai_session_id
             where p.last_ai_session_id is not null
        )
        select s.name as age, count(heads.age) as heads
          from (values (1, 'up to 1 h', interval '0', interval '1 h'),
                       (2, 'up to 24 h', '1 h', '24 h'),
                       (3, 'up to 7 d', '24 h', '7 d'),
                       (4, 'older', '7 d', '1000 y')) as s (n, name, above, upto)
          left join heads on heads.age > s.above and heads.age <= s.upto
                          or (s.n = 1 and heads.age <= s.above)
         group by s.n, s.name order by s.n
        """,
        None,
    )


def storage(conn: Connection) -> Row:
    """How much the transcripts take: as they were appended, and on disk (shared, compressed)."""
    return _rows(
        conn,
        """
        select (select count(*) from transcript_sessions where subpath = '') as sessions,
               (select coalesce(sum(bytes), 0)::bigint from transcript_sessions) as bytes,
               (select sum(pg_total_relation_size(c.oid))::bigint from pg_class c
                 where c.relkind = 'r' and c.relname like 'transcript%'
                   and pg_table_is_visible(c.oid)) as disk_bytes
        """,
        None,
    )[0]


def ticks(conn: Connection) -> list[Row]:
    """The newest run of each periodic job, with the seconds since."""
    return _rows(
        conn,
        """
        select distinct on (name) name, at, ended_at, result,
               extract(epoch from now() - at)::float as ago_s
          from ticks order by name, at desc
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
