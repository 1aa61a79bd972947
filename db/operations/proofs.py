"""How builds stood their checks, and what mending them cost: rows for `baton report checks`."""

from datetime import timedelta
from typing import Any, LiteralString

from psycopg import Connection
from psycopg.rows import dict_row

Row = dict[str, Any]


def outcomes(conn: Connection, period: timedelta) -> Row:
    """Of the jobs whose versions were checked in the period: how many passed `at_first`, `after` a
    repair, or `never`; what does not know its end yet is `open`."""
    with conn.cursor(row_factory=dict_row) as cur:
        found = cur.execute(OUTCOMES, {"period": period}).fetchone()
    assert found
    return found


OUTCOMES: LiteralString = """
    select count(*) as builds,
           count(*) filter (where ended and passed and round = 0) as at_first,
           count(*) filter (where ended and passed and round > 0) as after_repair,
           count(*) filter (where ended and not passed) as never,
           count(*) filter (where not ended) as open,
           coalesce(sum(round), 0)::bigint as repairs
      from (select distinct on (c.job_id) c.round, c.outcome = 'passed' as passed,
                   j.finished_at is not null as ended
              from checks c join jobs j on j.id = c.job_id
             where c.at > now() - %(period)s::interval
             order by c.job_id, c.id desc) newest"""


def repairs(conn: Connection, period: timedelta) -> list[Row]:
    """What a repair costs and takes, on the average: `resumed`, and of the `control` sample or
    otherwise `fresh`."""
    with conn.cursor(row_factory=dict_row) as cur:
        return cur.execute(REPAIRS, {"period": period}).fetchall()


REPAIRS: LiteralString = """
    select case when c.resumed then 'resumed' when c.reason = 'control' then 'control'
                else 'fresh' end as sample,
           count(*) as turns, avg(c.cost_usd) as cost_usd, sum(c.cost_usd) as spent_usd,
           bool_or(c.cost_estimated) as estimated, avg(c.duration_ms) as duration_ms
      from turn_costs c
     where c.kind = 'repair' and c.created_at > now() - %(period)s::interval
     group by 1 order by 1 desc"""
