"""What the turns of a period came to: the newest of them, however many there were.

A report over a month of a large fleet would read a million turns. So it reads the newest, and says
since when; or, when it is to, all of them.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

Row = dict[str, Any]

NEWEST = 10_000  # turns


@dataclass(frozen=True, slots=True)
class Window:
    """The turns of the period, of one project or of all; the newest `most`, or every one (None)."""

    period: timedelta
    project_id: str | None = None
    most: int | None = NEWEST

    def params(self, since: datetime | None = None) -> Row:
        """`since`: what is before it is not looked at either."""
        return {
            "period": self.period,
            "project": self.project_id,
            "most": self.most,
            "since": since,
        }

    def covered(self, turns: int, oldest: datetime | None) -> Row:
        """What it came to cover; `since` is None when that is the whole period."""
        full = self.most is not None and turns >= self.most
        return {"turns": turns, "since": oldest if full else None}


def resumed(conn: Connection, window: Window) -> list[Row]:
    """How turns began: view resume_turns, counted by day and way, with the oldest of each."""
    return _rows(conn, RESUMED, window.params())


RESUMED: LiteralString = """
    select (created_at at time zone 'UTC')::date::text as day, began, count(*) as turns,
           min(created_at) as oldest
      from (select created_at, began from resume_turns
             where created_at > now() - %(period)s::interval
             order by created_at desc limit %(most)s::bigint) newest
     group by 1, 2 order by 1, 2"""


def resume_reasons(conn: Connection, window: Window, since: datetime | None) -> list[Row]:
    """Why sessions were not resumed, or failed when they were; and why turns began fresh. Nothing
    that is older than `since`."""
    return _rows(conn, REASONS, window.params(since))


REASONS: LiteralString = """
    with looked as (
        select session_id, outcome, coalesce(reason, 'unknown') as reason, at
          from (select * from session_resume_attempts
                 where at > now() - %(period)s::interval
                   and (%(since)s::timestamptz is null or at >= %(since)s)
                 order by at desc limit %(most)s::bigint) newest
    ), turns as (
        select began, reason, created_at
          from (select began, reason, created_at from resume_turns
                 where created_at > now() - %(period)s::interval
                 order by created_at desc limit %(most)s::bigint) newest
    )
    select * from (
        select outcome as what, reason, count(*) as times, max(at) as latest
          from looked
         where session_id is not null and outcome in ('rejected', 'failed', 'abandoned')
         group by 1, 2
        union all
        select 'began ' || began, coalesce(reason, 'dropped'), count(*), max(created_at)
          from turns where began in ('fallback', 'policy', 'older') group by 1, 2
    ) found order by times desc, what, reason"""


def costs(conn: Connection, window: Window) -> tuple[list[Row], list[Row]]:
    """What turns cost, in USD: by project, kind of job and source of the transition; and means of
    build turns that resumed, that are the control sample, and that began fresh otherwise.

    `cached_share` is that of the tokens read from the prompt cache.
    """
    rows = _rows(conn, OF_A_PROJECT if window.project_id else OF_ALL, window.params())
    by_source = [_without(row, SAMPLED) for row in rows if row["sample"] is None]
    samples = [_without(row, SUMMED) for row in rows if row["sample"] is not None]
    return by_source, samples


def _without(row: Row, names: tuple[str, ...]) -> Row:
    return {name: value for name, value in row.items() if name not in names}


SUMMED = (
    "project_id",
    "kind",
    "source",
    "new_tokens",
    "cached_tokens",
    "output_tokens",
    "oldest",
)
SAMPLED = ("sample", "duration_ms_p50", "cached_share")

# A turn is in two groups: that of its project, kind and source, and that of its sample.
COSTS: LiteralString = """
    ), turns as (
        select c.*, case when c.kind <> 'build' then null when c.resumed then 'resumed'
                         when c.reason = 'control' then 'control' else 'fresh' end as sample
          from newest join turn_costs c using (session_id)
    )
    select t.project_id, t.kind, t.source, t.sample, count(*) as turns,
           case when grouping(t.sample) = 0 then avg(cost_usd) else sum(cost_usd) end as cost_usd,
           bool_or(cost_estimated) as estimated,
           case when grouping(t.sample) = 0 then avg(duration_ms)
                else sum(duration_ms)::bigint end as duration_ms,
           percentile_cont(0.5) within group (order by duration_ms) as duration_ms_p50,
           sum(input_tokens + cache_creation_tokens)::bigint as new_tokens,
           sum(cache_read_tokens)::bigint as cached_tokens,
           sum(output_tokens)::bigint as output_tokens,
           sum(cache_read_tokens)::float
             / nullif(sum(input_tokens + cache_creation_tokens + cache_read_tokens), 0)
             as cached_share,
           min(created_at) as oldest
      from turns t
     group by grouping sets ((t.project_id, t.kind, t.source), (t.sample))
    having grouping(t.sample) = 1 or t.sample is not null
     order by t.project_id, sum(cost_usd) desc, t.kind, t.source, t.sample"""
OF_ALL: LiteralString = (
    """
    with newest as (
        select session_id from project_ai_session_metrics
         where step is not null and created_at > now() - %(period)s::interval
         order by created_at desc limit %(most)s::bigint"""
    + COSTS
)
OF_A_PROJECT: LiteralString = (
    """
    with newest as (
        select session_id from project_ai_session_metrics
         where step is not null and created_at > now() - %(period)s::interval
           and project_id = %(project)s
         order by created_at desc limit %(most)s::bigint"""
    + COSTS
)


def in_vain(conn: Connection, window: Window, since: datetime | None) -> Row:
    """What turns cost that came to nothing, of those no older than `since`. Kept as long as
    finished jobs are."""
    return _rows(conn, IN_VAIN, window.params(since))[0]


IN_VAIN: LiteralString = """
    select count(*) as turns, coalesce(sum(cost_usd), 0) as cost_usd,
           coalesce(bool_or(cost_estimated), false) as estimated
      from (select cost_usd, cost_estimated from turns
             where outcome in ('failed', 'abandoned') and started_at > now() - %(period)s::interval
               and (%(since)s::timestamptz is null or started_at >= %(since)s)
               and (%(project)s::text is null or project_id = %(project)s)
             order by started_at desc limit %(most)s::bigint) newest"""


def _rows(conn: Connection, query: LiteralString, params: Row) -> list[Row]:
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(query, params).fetchall()
