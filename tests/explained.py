"""Plans of what a connection runs, with the rows that each step came across, as notices."""

import re
from collections.abc import Iterator
from typing import Any, LiteralString

from psycopg import Connection

EXPLAINED: LiteralString = """
    load 'auto_explain';
    set auto_explain.log_level = 'notice';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_analyze = on;
    set auto_explain.log_timing = off;
    set auto_explain.log_nested_statements = on"""

READ = re.compile(r"\(actual rows=(\d+)|Rows Removed by (?:Join )?Filter: (\d+)")


def explained(conn: Connection[Any]) -> list[str]:
    """The plans of what the connection is asked from now on. (Said first: it has Postgres plan anew.)"""
    plans = list[str]()
    conn.add_notice_handler(lambda told: plans.append(told.message_primary or ""))
    conn.execute(EXPLAINED, prepare=False)
    plans.clear()
    return plans


def rows_of(line: str) -> Iterator[int]:
    """How many rows a step of a plan read, and how many it passed over."""
    return (int(a or b) for a, b in READ.findall(line))
