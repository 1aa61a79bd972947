"""Rules of the product's own tables, compared with what every commit writes into them.

What a table can never take is found here, before anything is migrated; what depends on the
request is looked at with the request (db/functions/versions.sql), and the rest is tried out before
the first turn of a job (db/sessions/rehearsal.py).
"""

from collections.abc import Iterator
from typing import LiteralString

from psycopg import Connection, sql

TABLES = (
    *("projects", "project_versions", "session_transitions", "project_ai_session_metrics"),
    *("project_chat_log_minimal", "chat_plan_sessions"),
)
SESSION = 36  # characters of a session's id
# How long what Baton writes can be, whatever is asked for. Ids of the product's: with the request.
LONGEST = {
    **dict.fromkeys(("session_id", "ai_session_id", "last_ai_session_id"), SESSION),
    **dict.fromkeys(("old_session_id", "new_session_id", "parent_session_id"), SESSION),
    **dict.fromkeys(("tree", "workspace_tree"), 40),  # a git commit
    **dict.fromkeys(("lane", "branch"), 43),
    "source": 8,
    "reason": 40,
    "role": 9,
    "status": 12,
    "check_status": 9,
    "step": 15,
}
# Columns of which Baton writes each of these values, sooner or later.
VALUES = {
    "session_transitions.source": (
        *("build", "update", "metadata", "compact", "chat_plan"),
        *("fallback", "recovery", "reset", "fork", "operator"),
    ),
    "project_ai_session_metrics.status": ("active", "disconnected", "expired"),
    "project_chat_log_minimal.role": ("user", "assistant"),
}
OURS = ("session_transitions_source_known", "session_status_known")  # constraints


def too_short(conn: Connection) -> Iterator[tuple[str, int, int]]:
    """Columns that cannot hold what is written: the name, what it holds, and what it must."""
    rows = conn.execute(
        """
        select table_name || '.' || column_name, column_name, character_maximum_length
          from information_schema.columns
         where table_schema = current_schema() and table_name = any(%s)
           and character_maximum_length is not null order by 1
        """,
        (list(TABLES),),
    ).fetchall()
    for name, column, most in rows:
        if most < LONGEST.get(column, 0):
            yield name, most, LONGEST[column]


def forbidden(conn: Connection) -> Iterator[tuple[str, str, str]]:
    """Values that a check of one column does not let through: the column, the constraint, the value."""
    rows = conn.execute(
        """
        select c.conrelid::regclass::text, a.attname, c.conname, pg_get_expr(c.conbin, c.conrelid)
          from pg_constraint c
          join pg_attribute a on a.attrelid = c.conrelid and array[a.attnum] = c.conkey
         where c.contype = 'c' and c.connamespace = current_schema()::regnamespace
           and c.conrelid::regclass::text = any(%s) and c.conname <> all(%s) order by 1, 3
        """,
        (list(TABLES), list(OURS)),
    ).fetchall()
    for table, column, constraint, rule in rows:
        values = VALUES.get(f"{table}.{column}", ())
        refused = sql.SQL("select {c} from unnest(%s::text[]) as t ({c}) where not ({rule})")
        rule = sql.SQL(rule.replace("%", "%%"))  # as Postgres itself wrote it
        query = refused.format(c=sql.Identifier(column), rule=rule)
        for (value,) in conn.execute(query, (list(values),)) if values else ():
            yield f"{table}.{column}", constraint, value


def strange(conn: Connection) -> bool:
    """Whether one of the tables has a rule that is not Baton's: then only a try shows whether a
    row can be written."""
    row = conn.execute(STRANGE, ASKED).fetchone()
    return bool(row and row[0])


ASKED = {"tables": list(TABLES), "ours": list(OURS)}
STRANGE: LiteralString = """
    select exists (
        select from pg_class o
         where o.relnamespace = current_schema()::regnamespace and o.relname = any(%(tables)s)
           and (o.relrowsecurity
                or exists (select from pg_constraint c
                            where c.conrelid = o.oid and c.contype in ('c', 'f', 'x')
                              and c.conname <> all(%(ours)s))
                or exists (select from pg_trigger t where t.tgrelid = o.oid and not t.tgisinternal)
                or exists (
                    select from pg_index i  -- of an expression there is no column
                      left join pg_attribute a on a.attrelid = o.oid and a.attnum = i.indkey[0]
                     where i.indrelid = o.oid and i.indisunique
                       and a.attname is distinct from
                           case o.relname when 'projects' then 'project_id'
                                when 'project_ai_session_metrics' then 'session_id'
                                when 'chat_plan_sessions' then 'session_id' else 'id' end)
                or exists (
                    select from pg_attribute a
                     where a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped
                       and case when a.atttypid = 'varchar'::regtype then a.atttypmod > 0
                                when a.atttypid < 10000 then false  -- Postgres' own; no domains
                                else exists (select from pg_type t
                                              where t.oid = a.atttypid and t.typtype = 'd') end)))"""
