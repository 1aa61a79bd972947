"""Ids by their first characters. Each look is a range of an index, however many rows there are.

A job's id is a uuid: its range goes from the digits filled up with 0 to those filled up with f.
A session's is a text of the same form. Whatever the database's collation ignores (dashes) or
weighs, `g` comes after every hexadecimal digit, and `starts_with` has the last word.
"""

from collections.abc import Sequence
from uuid import UUID

from psycopg import Connection

SHOWN = 8  # characters of an id that are always shown
MOST = 5  # of several that begin alike


def jobs(conn: Connection, prefix: str) -> list[UUID]:
    """Up to MOST jobs whose ids begin so."""
    digits = prefix.replace("-", "")
    rows = conn.execute(
        "select id from jobs where id between %s and %s order by id limit %s",
        (UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")), MOST),
    )
    return [found for (found,) in rows]


def sessions(conn: Connection, prefix: str, project_id: str | None = None) -> list[str]:
    """Up to MOST sessions whose ids begin so, of the project if one is named: those of the
    registry, and those that a head was moved to before there was one."""
    rows = conn.execute(
        """
        (select session_id from project_ai_session_metrics
          where session_id >= %(prefix)s and session_id < %(prefix)s || 'g'
            and starts_with(session_id, %(prefix)s)
            and (%(project)s::text is null or project_id = %(project)s)
          order by session_id limit %(most)s)
        union
        (select new_session_id from session_transitions
          where new_session_id >= %(prefix)s and new_session_id < %(prefix)s || 'g'
            and starts_with(new_session_id, %(prefix)s)
            and (%(project)s::text is null or project_id = %(project)s)
          order by new_session_id limit %(most)s)
        order by 1 limit %(most)s
        """,
        {"prefix": prefix, "project": project_id, "most": MOST},
    )
    return [found for (found,) in rows]


def branches(conn: Connection, project_id: str, prefix: str) -> list[str]:
    """Up to MOST branches of the project whose names begin so."""
    rows = conn.execute(
        """
        select lane from branches where project_id = %s and starts_with(lane, %s)
         order by lane limit %s
        """,
        (project_id, prefix, MOST),
    )
    return [found for (found,) in rows]


def versions(conn: Connection, project_id: str, prefix: str) -> list[str]:
    """Up to MOST versions of the project whose ids begin so, the one of just that id first."""
    rows = conn.execute(
        """
        select version_id from project_versions
         where project_id = %s and starts_with(version_id, %s)
         group by version_id order by length(version_id), version_id limit %s
        """,
        (project_id, prefix, MOST),
    )
    return [found for (found,) in rows]


def shortest_of_jobs(conn: Connection, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Of each of these jobs the least of its id that no other job's begins with."""
    rows = conn.execute(
        """
        select given.id, (select id from jobs where id < given.id order by id desc limit 1),
               (select id from jobs where id > given.id order by id limit 1)
          from unnest(%s::uuid[]) given (id)
        """,
        (list(ids),),
    )
    return {one: shortest(str(one), *(n and str(n) for n in near)) for one, *near in rows}


def shortest_of_sessions(conn: Connection, ids: Sequence[str]) -> dict[str, str]:
    """Of each of these sessions the least of its id that no other session's begins with."""
    rows = conn.execute(
        """
        select given.id,
               (select session_id from project_ai_session_metrics
                 where session_id < given.id order by session_id desc limit 1),
               (select session_id from project_ai_session_metrics
                 where session_id > given.id order by session_id limit 1)
          from unnest(%s::text[]) given (id)
        """,
        (list(ids),),
    )
    return {one: shortest(one, *near) for one, *near in rows}


def shortest(one: str, *near: str | None, least: int = SHOWN) -> str:
    """The beginning of `one` that its neighbours in order do not share; `least` at the least."""
    length = least
    for other in filter(None, near):
        while length < len(one) and other.startswith(one[:length]):
            length += 1
    return one[: length + 1] if one[length - 1 : length] == "-" else one[:length]
