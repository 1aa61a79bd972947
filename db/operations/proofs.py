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


def races(conn: Connection, period: timedelta) -> Row:
    """Of those who raced and ended in the period: how many `races` they were of, how many of these
    have a winner (`won`), what all of them cost, and of that those that were not taken."""
    with conn.cursor(row_factory=dict_row) as cur:
        found = cur.execute(RACES, {"period": period}).fetchone()
    assert found
    return found


RACES: LiteralString = """
    select count(distinct r.id) as races, count(distinct r.id) filter (where won) as won,
           count(*) as racers, coalesce(sum(cost), 0) as cost_usd,
           coalesce(sum(cost) filter (where taken is not true), 0) as lost_usd
      from jobs j
      join jobs r on r.id = j.parent_id
     cross join lateral (
        select r.result -> 'race' is not null as won, r.result -> 'race' ->> 'branch' = j.lane as taken,
               (select sum(t.cost_usd) from turns t where t.job_id = j.id) as cost) x
     where j.args ? 'racer' and j.finished_at > now() - %(period)s::interval"""


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
