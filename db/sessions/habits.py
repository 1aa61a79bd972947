"""How a project has been worked on lately: how long it rests between updates, how much a turn asks
of the model, and how much of that is written to the provider's cache."""

from dataclasses import dataclass, replace

from psycopg import Connection
from psycopg.rows import class_row

TURNS = 120  # the newest ones; a chain has some five
KNOWN = 2  # gaps that are enough to go by


@dataclass(frozen=True, slots=True)
class Habits:
    """Of one line of work. `gaps`: seconds before each update in which nothing was asked, newest
    first; `written`: tokens to the cache, for each update.

    `calls`: requests of an update that went on from a session, with all legs of its chain; `grown`:
    tokens that it added. `begun`, `summed`: tokens that the newest one ended with that began fresh,
    or went on from a compaction, and its requests; `summary`: of the newest compaction."""

    gaps: list[float]
    calls: float | None = None
    written: float | None = None
    grown: float | None = None
    begun: float | None = None
    begun_calls: float | None = None
    summed: float | None = None
    summed_calls: float | None = None
    summary: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is enough of a past to go by."""
        return len(self.gaps) >= KNOWN

    def before(self) -> "Habits":
        """As they were before the newest gap."""
        return replace(self, gaps=self.gaps[1:])

    def share(self, least: float, below: float = float("inf")) -> float:
        """Of the gaps, those from `least` on and `below` that (seconds)."""
        return (
            sum(least <= gap < below for gap in self.gaps) / len(self.gaps)
            if self.gaps
            else 0.0
        )


NONE = Habits([])


def of(conn: Connection, project_id: str, lane: str) -> Habits:
    """The habits of a project's line of work."""
    with conn.cursor(row_factory=class_row(Habits)) as cur:
        row = cur.execute(
            """
            with recent as (
                select step, num_turns, parent_session_id, context_tokens, cache_creation_tokens,
                       output_tokens, created_at,
                       created_at - make_interval(secs => coalesce(duration_ms, 0) / 1000.0) as began
                  from project_ai_session_metrics
                 where project_id = %s and lane = %s
                 order by created_at desc limit %s
            ), turns as (
                select *, lag(created_at) over (order by created_at) as before from recent
            ), builds as (
                select t.*, t.context_tokens - p.context_tokens as grown,
                       case when t.parent_session_id is null then 'begun'
                            when p.step = 'compaction' then 'summed' else 'went on' end as how
                  from turns t
                  left join project_ai_session_metrics p on p.session_id = t.parent_session_id
                 where t.step = 'build'
            ), legs as (
                select sum(num_turns) filter (where step <> 'build')::float8
                       / nullif(count(*) filter (where step = 'build'), 0) as calls,
                       sum(cache_creation_tokens)::float8
                       / nullif(count(*) filter (where step = 'build'), 0) as written,
                       (array_agg(output_tokens order by created_at desc)
                        filter (where step = 'compaction'))[1]::float8 as summary
                  from turns
            ), newest as (
                select distinct on (how) how, context_tokens, num_turns from builds
                 where context_tokens > 0 order by how, created_at desc
            )
            select coalesce(array_agg(greatest(0, extract(epoch from u.began - u.before))::float8
                                      order by u.created_at desc)
                            filter (where u.before is not null), '{}') as gaps,
                   avg(u.num_turns) filter (where u.how = 'went on')::float8 + l.calls as calls,
                   l.written,
                   avg(u.grown) filter (where u.how = 'went on' and u.grown > 0)::float8 as grown,
                   b.context_tokens::float8 as begun, b.num_turns + l.calls as begun_calls,
                   s.context_tokens::float8 as summed, s.num_turns + l.calls as summed_calls,
                   l.summary
              from legs l left join builds u on true
              left join newest b on b.how = 'begun' left join newest s on s.how = 'summed'
             group by l.calls, l.written, l.summary, b.context_tokens, b.num_turns, s.context_tokens,
                      s.num_turns
            """,
            (project_id, lane, TURNS),
        ).fetchone()
    return row or NONE
