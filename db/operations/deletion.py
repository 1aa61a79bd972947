"""Deleting all that the ledger holds of a project or a user.

    alone ──► take_project, each in a transaction ──► (files, keys) ──► receipts.close
       └─────────── the receipt is open: its projects take no jobs ───────────┘

A project's rows go in the transaction that notes them in the receipt, or not at all.
Whoever asks for a job meanwhile is refused (baton_refuse_deleted), or asked before it and
is deleted too: both take a lock of the project first.
"""

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import LiteralString
from uuid import UUID

from psycopg import Connection, errors, sql

from db.core.connections import LIVENESS, Own
from db.operations import receipts
from db.sessions import budgets
from db.transcripts import appends, listings

ALONE = 7_239_185_002  # any number of our own: one deletion at a time
PATIENCE = 10.0  # seconds for those who hold what is to be deleted
POLL = 0.05  # seconds

# Every table with rows of a project, in the order in which they go: what there is much of, then turns,
# which may hold the day's sums from then on, and their jobs. Rows of the product's own tables may refer
# to its versions and projects, so these are last.
TABLES: tuple[LiteralString, ...] = (
    *("lane_ends", "events", "project_chat_log_minimal"),
    *("chat_plan_sessions", "project_ai_session_metrics", "session_transitions"),
    *("session_transitions_archive", "transcript_batches", "transcript_sessions"),
    *("transcript_entries", "transcript_removals"),
    *("checks", "project_checks", "turns", "session_resume_attempts", "webhooks", "jobs"),
    *("project_versions", "branches"),
    *("live_connections", "account_projects", "spent_by_day", "projects"),
)
# Every table that says whose a row is.
OF_USERS: tuple[LiteralString, ...] = (
    *("projects", "jobs", "project_ai_session_metrics", "chat_plan_sessions", "branches"),
    *("user_asks", "user_turns", "live_connections", "webhooks", "spent_by_day"),
)


class Held(Exception):
    """Nothing more was deleted; the text says why, and what to do."""


@contextmanager
def alone(conn: Connection) -> Generator[None]:
    """Be the one deletion of this database. Raises Held when another is under way.

    The lock is a transaction's, on a connection beside `conn`: of a session's own lock a pooler
    knows nothing. It takes no snapshot, so it holds no clean-up back.
    """
    beside = Own.connect(
        conn.info.dsn, password=conn.info.password, autocommit=True, **LIVENESS
    ).begin()
    try:
        beside.autocommit = False
        beside.execute("select set_config('idle_in_transaction_session_timeout', '0', true)")
        taken = beside.execute("select pg_try_advisory_xact_lock(%s)", (ALONE,)).fetchone()
        if taken != (True,):
            raise Held("Another deletion is under way: ask again when it has ended.")
        yield
    finally:
        beside.close()  # and its transaction ends


def projects_of(conn: Connection, what: str, subject: str) -> list[str]:
    """The projects that go with it: a project's own id, or those of a user."""
    if what == "project":
        return [subject]
    rows = conn.execute(
        "select project_id from projects where user_id = %s order by 1", (subject,)
    )
    return [project_id for (project_id,) in rows]


def found(conn: Connection, what: str, subject: str) -> dict[str, int]:
    """How many rows there are of it, by table; tables that have none are left out."""
    column, tables = ("project_id", TABLES) if what == "project" else ("user_id", OF_USERS)
    counted = dict[str, int]()
    for table in tables:
        query = sql.SQL("select count(*) from {} where {} = %s").format(
            sql.Identifier(table), _column(table, column)
        )
        for (n,) in conn.execute(query, (subject,)):
            counted[table] = n
    return {table: n for table, n in counted.items() if n}


def _column(table: str, column: LiteralString) -> sql.Composable:
    """The column as the table's index for deletions has it (0022_scale.sql)."""
    return sql.SQL(column + ' collate "C"') if table == "jobs" else sql.Identifier(column)


def check_idle(conn: Connection, projects: Sequence[str], user_id: str | None = None) -> None:
    """Raises Held if a job of these projects, or of the user, runs."""
    row = conn.execute(
        """
        select id, project_id from jobs
         where state = 'running' and (project_id = any(%s) or user_id = %s) limit 1
        """,
        (list(projects), user_id),
    ).fetchone()
    if row:
        raise Held(
            f"Job {row[0]} of project {row[1]} is running: `baton cancel {row[0]}` first,"
            " and ask again when it has stopped."
        )


def take_project(
    conn: Connection, receipt_id: UUID, project_id: str, *, turns_here: Sequence[str]
) -> None:
    """Delete every row of the project, and note what is to be removed outside the ledger.

    `turns_here` are the turns of which this host has a directory. Raises Held, with
    nothing deleted, when a job runs or somebody holds what is to be deleted.
    """
    budgets.count_all(conn)
    with _patiently(project_id), conn.transaction():
        _take_turn(conn, project_id)
        conn.execute("select set_config('lock_timeout', %s, true)", (f"{PATIENCE:g}s",))
        conn.execute(  # a claim passes over rows that are locked
            'select from jobs where project_id collate "C" = %s order by id for update',
            (project_id,),
        )
        check_idle(conn, [project_id])
        conn.execute("select from projects where project_id = %s for update", (project_id,))
        appends.lock(conn, project_id)
        _note(conn, receipt_id, project_id, turns_here)
        gone = dict[str, int]()
        for table in (*_detached_months(conn), *TABLES):
            query = sql.SQL("delete from {} where {} = %s").format(
                sql.Identifier(table), _column(table, "project_id")
            )
            gone[table] = conn.execute(query, (project_id,)).rowcount
        receipts.count(conn, receipt_id, gone)


@contextmanager
def _patiently(project_id: str) -> Generator[None]:
    try:
        yield
    except (errors.LockNotAvailable, errors.DeadlockDetected) as exc:
        raise Held(
            f"Somebody's transaction holds rows of project {project_id}: end it, and ask again."
        ) from exc
    except errors.ForeignKeyViolation as exc:
        raise Held(
            f"Your product's table {exc.diag.table_name} refers to project {project_id}:"
            " delete what is there first, and ask again."
        ) from exc


def _take_turn(conn: Connection, project_id: str) -> None:
    """Wait until nobody is asking for a job of the project. Not in a line: those who come
    after us would have to stand behind."""
    until = time.monotonic() + PATIENCE
    query = "select pg_try_advisory_xact_lock(baton_deletion_lock(%s))"
    while conn.execute(query, (project_id,)).fetchone() != (True,):
        if time.monotonic() > until:
            raise Held(
                "A transaction that has asked for a job, most likely of project"
                f" {project_id}, is still open: end it, and ask again."
            )
        time.sleep(POLL)


def _note(
    conn: Connection, receipt_id: UUID, project_id: str, turns_here: Sequence[str]
) -> None:
    """Write down, before it is forgotten, where the project may have files and keys."""
    conn.execute(
        """
        update deletions set todo = todo || jsonb_build_object(
            'projects', jsonb_build_object(%(project)s::text, (
                select workspace from projects where project_id = %(project)s))
                || (todo -> 'projects'),
            'owners', coalesce(todo -> 'owners', '{}') || jsonb_build_object(%(project)s::text, (
                select user_id from projects where project_id = %(project)s)),
            'chains', todo -> 'chains' || (
                select coalesce(jsonb_agg(distinct chain_id), '[]') from jobs
                 where project_id collate "C" = %(project)s),
            'turns', todo -> 'turns' || (
                select coalesce(jsonb_agg(minted_session_id), '[]') from turns
                 where project_id = %(project)s and minted_session_id = any(%(here)s)))
         where id = %(id)s
        """,
        {"id": receipt_id, "project": project_id, "here": list(turns_here)},
    )


def _detached_months(conn: Connection) -> list[str]:
    """Months that were taken out of the archive and are still in the schema."""
    rows = conn.execute(
        """
        select relname from pg_class
         where relnamespace = current_schema()::regnamespace and relkind = 'r'
           and not relispartition and relname ~ '^session_transitions_archive_[0-9]{4}_[0-9]{2}'
        """
    )
    return [name for (name,) in rows]


def take_user(conn: Connection, receipt_id: UUID, user_id: str) -> None:
    """Delete what is left of a user in projects that are another's by now. Raises Held.

    Moves and events of such a project stay in their order, without the user's words: they
    are the other's audit. Figures stay without the user's name.
    """
    budgets.count_all(conn)
    with conn.transaction():
        conn.execute(
            'select from jobs where user_id collate "C" = %s order by id for update', (user_id,)
        )
        check_idle(conn, [], user_id)
        touched = [
            project_id
            for (project_id,) in conn.execute(
                "select project_id from "
                + SESSIONS
                + ' theirs union select project_id from jobs where user_id collate "C" = %(user)s order by 1',
                {"user": user_id},
            )
        ]
        for project_id in touched:
            appends.lock(conn, project_id)
        _note_branches(conn, receipt_id, user_id)
        gone = {
            table: conn.execute(query, {"user": user_id, "touched": touched}).rowcount
            for table, query in THEIRS.items()
        }
        for project_id in touched:
            while swept := listings.sweep_entries(conn, project_id):
                gone["transcript_entries"] = gone.get("transcript_entries", 0) + swept
        receipts.count(conn, receipt_id, gone)


def _note_branches(conn: Connection, receipt_id: UUID, user_id: str) -> None:
    """Write down of which branches there may be files, and under which names the remote may
    have them, before they are forgotten."""
    conn.execute(
        """
        update deletions set todo = todo || jsonb_build_object(
            'branches', coalesce(todo -> 'branches', '[]') || (
                select coalesce(jsonb_agg(jsonb_build_array(project_id, lane)), '[]')
                  from branches where user_id = %(user)s),
            'attempts', coalesce(todo -> 'attempts', '[]') || (
                select coalesce(jsonb_agg(distinct jsonb_build_array(t.project_id, t.attempt)), '[]')
                  from turns t join jobs j on j.id = t.job_id
                 where j.user_id collate "C" = %(user)s and j.lane <> 'main'))
         where id = %(id)s
        """,
        {"id": receipt_id, "user": user_id},
    )


JOBS: LiteralString = '(select id from jobs where user_id collate "C" = %(user)s)'
SESSIONS: LiteralString = (
    """(
    select project_id, session_id from project_ai_session_metrics where user_id = %(user)s
    union select project_id, minted_session_id from turns where job_id in """
    + JOBS
    + ")"
)
# For the index: there is none by job or session where these are.
TOUCHED: LiteralString = "project_id = any(%(touched)s::text[]) and "
# In the order in which they go; of events and figures only what is the user's.
THEIRS: dict[str, LiteralString] = {
    "project_chat_log_minimal": "delete from project_chat_log_minimal where "
    + TOUCHED
    + "(job_id in "
    + JOBS
    + " or (project_id, ai_session_id) in "
    + SESSIONS
    + ")",
    "chat_plan_sessions": "delete from chat_plan_sessions where user_id = %(user)s",
    "branches": "delete from branches where user_id = %(user)s",
    "transcript_batches": "delete from transcript_batches where "
    + TOUCHED
    + "(project_id, session_id) in "
    + SESSIONS,
    "transcript_sessions": "delete from transcript_sessions where "
    + TOUCHED
    + "(project_id, session_id) in "
    + SESSIONS,
    "session_resume_attempts": "delete from session_resume_attempts where job_id in " + JOBS,
    "checks": "delete from checks where job_id in " + JOBS,
    "turns": "delete from turns where job_id in " + JOBS,
    "events": """
        update events set body = jsonb_build_object('kind', body -> 'kind', 'chain', body -> 'chain')
         where """
    + TOUCHED
    + "job_id in "
    + JOBS,
    "webhooks": "delete from webhooks where user_id = %(user)s",
    "jobs": 'delete from jobs where user_id collate "C" = %(user)s',
    "user_asks": "delete from user_asks where user_id = %(user)s",
    "user_turns": "delete from user_turns where user_id = %(user)s",
    "spent_by_day": "delete from spent_by_day where user_id = %(user)s",
    "live_connections": "delete from live_connections where user_id = %(user)s",
    "project_ai_session_metrics": """
        update project_ai_session_metrics
           set user_id = '', summary = null, digest_files = null,
               digest_documentation = null, is_resumable = false, status = 'expired'
         where user_id = %(user)s""",
}
