"""Whether Baton can work with the product's own tables, checked before a migration changes any.

Tables of these names may be the product's: what is there is kept, what is missing is
added, no type is changed. So what cannot be completed is refused here, with a sentence.
"""

from typing import Literal

from psycopg import Connection

from db.core import product_rules


class MigrationRefused(Exception):
    """The database is not as the migrations expect; nothing was changed by the refused step."""


TEXT = ("text", "character varying")
NUMBER = ("bigint", "integer")
TIME = ("timestamp with time zone", "timestamp without time zone")

# Columns of product tables that ours are compared with, and the types that allow it.
TYPES = {
    "projects.project_id": TEXT,
    "projects.user_id": TEXT,
    "projects.workspace": TEXT,
    "projects.last_ai_session_id": TEXT,
    "projects.last_ai_session_updated_at": TIME,
    "projects.event_seq": NUMBER,
    "projects.fresh_next": ("boolean",),
    "projects.workspace_tree": TEXT,
    "project_versions.project_id": TEXT,
    "project_versions.version_id": TEXT,
    "project_versions.tree": TEXT,
    "project_versions.ai_session_id": TEXT,
    "project_versions.ai_session_created_at": TIME,
    "project_versions.ai_session_last_used_at": TIME,
    "project_versions.created_at": TIME,
    "project_versions.digest_files": ("jsonb",),
    "project_versions.digest_documentation": TEXT,
    "project_versions.check_status": TEXT,
    "session_transitions.id": NUMBER,
    "session_transitions.project_id": TEXT,
    "session_transitions.version_id": TEXT,
    "session_transitions.old_session_id": TEXT,
    "session_transitions.new_session_id": TEXT,
    "session_transitions.source": TEXT,
    "session_transitions.created_at": TIME,
    "session_transitions.tree": TEXT,
    "project_ai_session_metrics.session_id": TEXT,
    "project_ai_session_metrics.project_id": TEXT,
    "project_ai_session_metrics.user_id": TEXT,
    "project_ai_session_metrics.version_id": TEXT,
    "project_ai_session_metrics.status": TEXT,
    "project_ai_session_metrics.created_at": TIME,
    "project_ai_session_metrics.last_used_at": TIME,
    "project_ai_session_metrics.lane": TEXT,
    "project_ai_session_metrics.branch": TEXT,
    "project_ai_session_metrics.digest_files": ("jsonb",),
    "project_ai_session_metrics.digest_documentation": TEXT,
    "project_ai_session_metrics.is_resumable": ("boolean",),
    "project_ai_session_metrics.resume_failure_count": NUMBER,
    "project_chat_log_minimal.project_id": TEXT,
    "project_chat_log_minimal.session_id": TEXT,
    "project_chat_log_minimal.ai_session_id": TEXT,
    "project_chat_log_minimal.role": TEXT,
    "project_chat_log_minimal.content": TEXT,
    "project_chat_log_minimal.created_at": TIME,
    "chat_plan_sessions.session_id": TEXT,
    "chat_plan_sessions.project_id": TEXT,
}
# Columns that cannot be added to rows that are there: only the product can say them.
NEEDED = ("projects.project_id", "projects.user_id")

# Tables to which every commit adds a row, and the columns that it never leaves null.
# (Rows of projects and versions the product may insert itself: baton_enqueue looks.)
FILLED = {
    "session_transitions": {"project_id", "new_session_id", "source"},
    "project_ai_session_metrics": {
        *("session_id", "project_id", "user_id", "job_id", "step", "resumed"),
        *("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens"),
        *("context_tokens", "cost_usd", "cost_estimated", "turns_since_start", "lane"),
    },
    "project_chat_log_minimal": {
        *("project_id", "session_id", "ai_session_id", "role", "content", "job_id"),
        "created_at",
    },
    "chat_plan_sessions": {"session_id", "project_id", "user_id", "job_id"},
}
# Those that it may leave null, whatever the column's default.
SOMETIMES = {
    *("version_id", "old_session_id", "parent_session_id", "reason", "raw_cost_usd"),
    *("duration_ms", "num_turns", "model", "cli_version", "summary", "tree"),
}

# Tables that are Baton's alone: one of that name would be somebody else's.
OURS = (
    *("jobs", "turns", "events", "limits", "workers", "ticks", "session_resume_attempts"),
    *("session_transitions_archive", "transcript_entries", "transcript_batches"),
    *("transcript_sessions", "transcript_removals", "session_chain", "session_sync"),
    *("sessions_kept", "deletions", "branches", "user_turns", "lane_ends", "relays"),
    *("baton_settings", "user_asks", "checks", "project_checks", "spent_by_day"),
)
ANOTHER_SCHEMA = "or give Baton a schema of its own (search_path)"


def check(conn: Connection, *, begun: bool) -> None:
    """Raises MigrationRefused if the schema holds what ours cannot work with. Writes nothing.

    `begun`: whether a migration of ours was here before.
    """
    if conn.execute("select current_schema()").fetchone() == (None,):
        raise MigrationRefused(
            "No schema of the connection's search_path exists: create it first."
        )
    if not begun:
        _check_names(conn)
    found = {
        f"{table}.{column}": (kind, nullable == "YES", default)
        for table, column, kind, nullable, default in conn.execute(
            """
            select table_name, column_name, data_type, is_nullable,
                   column_default is not null or is_identity = 'YES' or is_generated = 'ALWAYS'
              from information_schema.columns where table_schema = current_schema()
            """
        )
    }
    _check_needed(set(found))
    for name, (kind, nullable, default) in sorted(found.items()):
        _check_type(name, kind)
        if not nullable:
            _check_filled(name, default=default)
    _check_rules(conn)


def fitness(conn: Connection) -> tuple[Literal["ok", "fail"], str]:
    """Whether the tables can hold what jobs write, and a sentence: for `baton doctor`."""
    try:
        check(conn, begun=True)
    except MigrationRefused as exc:
        return "fail", str(exc)
    return "ok", "the product's can hold what jobs write"


def _check_rules(conn: Connection) -> None:
    for name, holds, needs in product_rules.too_short(conn):
        raise MigrationRefused(
            f"Column {name} holds {holds} characters, and Baton writes {needs}: make it longer,"
            f" {ANOTHER_SCHEMA}."
        )
    for name, constraint, value in product_rules.forbidden(conn):
        raise MigrationRefused(
            f"Column {name} must not be '{value}' (constraint {constraint}), and Baton writes"
            f" that: allow it, {ANOTHER_SCHEMA}."
        )


def _check_names(conn: Connection) -> None:
    taken = conn.execute(
        """
        select relname from pg_class
         where relnamespace = current_schema()::regnamespace and relname = any(%s) limit 1
        """,
        (list(OURS),),
    ).fetchone()
    if taken:
        raise MigrationRefused(
            f"There is a table {taken[0]} already, and Baton has one of that name: rename it,"
            f" {ANOTHER_SCHEMA}."
        )


def _check_needed(found: set[str]) -> None:
    tables = {name.partition(".")[0] for name in found}
    for name in NEEDED:
        table, _, column = name.partition(".")
        if table in tables and name not in found:
            raise MigrationRefused(
                f"Table {table} has no column {column}, and Baton cannot know it: add the"
                f" column, {ANOTHER_SCHEMA}."
            )


def _check_type(name: str, kind: str) -> None:
    allowed = TYPES.get(name)
    if allowed and kind not in allowed:
        raise MigrationRefused(
            f"Column {name} is {kind}, and Baton needs {allowed[0]}: change its type,"
            f" {ANOTHER_SCHEMA}."
        )


def _check_filled(name: str, *, default: bool) -> None:
    table, _, column = name.partition(".")
    filled = FILLED.get(table)
    if filled is None or column in filled or (default and column not in SOMETIMES):
        return
    raise MigrationRefused(
        f"Column {name} must not be null, and Baton has no value for it in each of its rows:"
        f" allow null there{'' if column in SOMETIMES else ', give it a default'},"
        f" {ANOTHER_SCHEMA}."
    )
