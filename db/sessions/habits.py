"""How a project has been worked on lately: how long it rests between updates, how much a turn asks
of the model, and how much of that is written to the provider's cache."""

from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import class_row

TURNS = 120  # the newest ones; a chain has some five


@dataclass(frozen=True, slots=True)
class Habits:
    """Of one line of work. `gaps`: seconds before each update in which nothing was asked, newest
    first; `calls`: requests of an update's turn; `written`: tokens to the cache, for each update."""

    gaps: list[float]
    calls: float | None = None
    written: float | None = None

    @property
    def known(self) -> bool:
        """Whether there is enough of a past to go by."""
        return len(self.gaps) >= 3

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
                select step, num_turns, cache_creation_tokens, created_at,
                       created_at - make_interval(secs => coalesce(duration_ms, 0) / 1000.0) as began
                  from project_ai_session_metrics
                 where project_id = %s and lane = %s
                 order by created_at desc limit %s
            ), turns as (
                select *, lag(created_at) over (order by created_at) as before from recent
            )
            select coalesce(array_agg(greatest(0, extract(epoch from began - before))::float8
                                      order by created_at desc)
                            filter (where step = 'build' and before is not null), '{}') as gaps,
                   avg(num_turns) filter (where step = 'build')::float8 as calls,
                   (sum(cache_creation_tokens)
                    / nullif(count(*) filter (where step = 'build'), 0))::float8 as written
              from turns
            """,
            (project_id, lane, TURNS),
        ).fetchone()
    return row or NONE
