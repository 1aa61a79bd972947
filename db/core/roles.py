"""Roles of least right, and the second wall between tenants: `baton migrate --roles`.

    baton_worker     the processes of the Procfile: every row, no table's shape
    baton_producer   may ask, cancel, ask again, and read what came of it     one user's rows: those of
    baton_reader     may read what is told of jobs, sessions and costs     set_config('baton.user', …)

They are nobody's to log in with: whoever runs a process makes a role of its own that is in one
of them. Row-level security is for the latter two alone. Everybody else sees what they saw
before: it is a policy that only restricts, for these roles, beside one that lets all through.

Roles are the server's and rights are the database's, so each database is given them once; after
that every `baton migrate` renews what is missing.
"""

from contextlib import suppress
from typing import LiteralString

from psycopg import Connection, errors, sql

from db.core.migration_steps import Hand
from db.core.product import MigrationRefused

WORKER, PRODUCER, READER = ROLES = ("baton_worker", "baton_producer", "baton_reader")

MINE: LiteralString = "user_id::text = baton_user()"
OF_MY_PROJECTS: LiteralString = """project_id in (
    select p.project_id from projects p where p.user_id::text = baton_user())"""
BOTH: LiteralString = "(user_id is null or user_id::text = baton_user()) and " + OF_MY_PROJECTS
# Which rows are one user's, of the tables that producers read, and of those for readers alone.
RESULTS: dict[str, LiteralString] = {
    "projects": MINE,
    "jobs": MINE,
    "branches": MINE,
    "webhooks": MINE,
    "project_versions": OF_MY_PROJECTS,
    "project_chat_log_minimal": OF_MY_PROJECTS,
    "events": OF_MY_PROJECTS,
    "checks": OF_MY_PROJECTS,
}
FIGURES: dict[str, LiteralString] = {
    "session_transitions": OF_MY_PROJECTS,
    "session_transitions_archive": OF_MY_PROJECTS,
    "project_ai_session_metrics": BOTH,
    "chat_plan_sessions": BOTH,
    "session_resume_attempts": OF_MY_PROJECTS,
    "turns": OF_MY_PROJECTS,
    "project_checks": OF_MY_PROJECTS,
}
BOUND: dict[str, LiteralString] = {**RESULTS, **FIGURES}
HIDDEN = {"turns": ["token_hash"]}  # columns that readers do not see
# Views that are of these tables alone. Before Postgres 15 a view reads with its owner's rights
# only, past every policy: there no reader is given one.
VIEWS = ("session_chain", "session_sync", "resume_turns", "resume_failures", "turn_costs")
OWN_RIGHTS = 150_000
# Tables of ours with no row of a project or a user that either role may see: the workers' alone.
INNER = (
    *("account_projects", "accounts", "api_keys", "baton_settings", "beats", "calls"),
    *("call_events", "deletions", "lane_ends", "limits", "live_connections"),
    *("refused_messages", "relays", "revoked_tasks", "sessions", "signed_out", "spent_by_day"),
    "ticks",
    *("transcript_batches", "transcript_entries", "transcript_removals"),
    *("transcript_sessions", "user_asks", "user_turns", "voice_charges", "workers"),
)
LOOKED_AT = "baton_migrations"  # by workers, who change nothing of it
# They speak for the user of a producer's connection, with their owner's rights.
SPEAKING = ("baton_enqueue_for", "baton_cancel", "baton_retry")
DOORS = (*SPEAKING, "baton_enqueue")
LOGGED = ("log_min_error_statement", "log_error_verbosity", "log_parameter_max_length_on_error")


def make(hand: Hand) -> None:
    """Make the roles that are not there, and give them their rights here. Raises MigrationRefused."""
    conn = hand.conn
    known = {name for (name,) in conn.execute("select rolname from pg_roles")}
    missing = [name for name in ROLES if name not in known]
    row = conn.execute(
        "select rolsuper or rolcreaterole from pg_roles where rolname = current_user"
    ).fetchone()
    if missing and row != (True,):
        raise MigrationRefused(
            f"This role may not create roles: have {', '.join(missing)} created by one that may"
            " (`create role … nologin`), and run `baton migrate --roles` again."
        )
    for name in missing:
        # By another run just now.
        with suppress(errors.DuplicateObject, errors.UniqueViolation):
            conn.execute(sql.SQL("create role {} nologin").format(sql.Identifier(name)))
    give(hand)


def given(conn: Connection) -> bool:
    """Whether this database's tables were given to the roles."""
    row = conn.execute(
        """
        select exists (select from pg_policy where polname = 'baton_own'
                          and polrelid = to_regclass('jobs'))
        """
    ).fetchone()
    return row == (True,)


def give(hand: Hand) -> None:
    """Give each role its rights; what it has already is not asked for again."""
    for table in BOUND:
        if not _walled(hand.conn, table):
            hand.gently(table, lambda: _wall(hand.conn, table))  # noqa: B023
    hand.gently("rights of roles", lambda: grant(hand.conn))


def _walled(conn: Connection, table: str) -> bool:
    row = conn.execute(
        """
        select relrowsecurity and 2 = (
            select count(*) from pg_policy
             where polrelid = c.oid and polname in ('baton_own', 'baton_all'))
          from pg_class c where c.oid = to_regclass(%s)
        """,
        (table,),
    ).fetchone()
    return row == (True,)


def _wall(conn: Connection, table: str) -> None:
    """Row-level security, whose two policies let everybody through but those two roles."""
    rows = BOUND[table]
    for statement in (
        "drop policy if exists baton_all on {table}",
        "drop policy if exists baton_own on {table}",
        "create policy baton_all on {table} using (true) with check (true)",
        "create policy baton_own on {table} as restrictive to {roles} using (" + rows + ")",
        "alter table {table} enable row level security",
    ):
        conn.execute(
            sql.SQL(statement).format(
                table=sql.Identifier(table),
                roles=sql.SQL(", ").join(map(sql.Identifier, (PRODUCER, READER))),
            )
        )


def grant(conn: Connection) -> None:
    """The rights themselves. Said again they change nothing."""
    row = conn.execute("select current_schema(), current_database()").fetchone()
    assert row
    _to(conn, "grant connect on database {0} to {roles}", row[1])
    _to(conn, "grant usage on schema {0} to {roles}", row[0])
    for table in (*BOUND, *INNER):
        rights = "grant select, insert, update, delete on {0} to {roles}"
        _to(conn, rights, table, to=(WORKER,))
        for sequence in _sequences(conn, table):  # of a product's column
            _to(conn, "grant usage on sequence {0} to {roles}", sequence, to=(WORKER,))
    _to(conn, "grant select on {0} to {roles}", LOOKED_AT, to=(WORKER,))
    for table in RESULTS:
        _to(conn, "grant select on {0} to {roles}", table, to=(PRODUCER, READER))
    for table in FIGURES:
        _to(conn, _select(conn, table), table, to=(READER,))
    for name in _functions(conn):
        _to(conn, "grant execute on function {0} to {roles}", name, to=(WORKER,))
    _to(conn, "grant execute on function {0} to {roles}", "baton_user")
    for door in DOORS:
        _to(conn, "grant execute on function {0} to {roles}", door, to=(PRODUCER,))
    grant_views(conn)
    if conn.info.server_version >= OWN_RIGHTS:
        _let_log(conn)


def grant_views(conn: Connection) -> None:
    """Views, which read past every policy unless they say otherwise: one that is replaced has
    lost what it said, and is told again before anybody sees it."""
    for view in (*VIEWS, "sessions_kept"):
        _to(conn, "grant select on {0} to {roles}", view, to=(WORKER,))
    if conn.info.server_version >= OWN_RIGHTS:
        for view in VIEWS:
            _to(conn, "alter view {0} set (security_invoker = true)", view)
            _to(conn, "grant select on {0} to {roles}", view, to=(READER,))


def _functions(conn: Connection) -> list[str]:
    """Ours, but for those that speak for others."""
    rows = conn.execute(
        """
        select distinct proname from pg_proc
         where pronamespace = current_schema()::regnamespace and starts_with(proname, 'baton_')
           and proname <> all(%s) and prorettype <> 'trigger'::regtype
        """,
        (list(SPEAKING),),
    )
    return [name for (name,) in rows]


def _sequences(conn: Connection, table: str) -> list[str]:
    rows = conn.execute(
        """
        select s.relname from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
         where d.refobjid = to_regclass(%s) and d.deptype = 'a'
           and s.relnamespace = current_schema()::regnamespace
        """,
        (table,),
    )
    return [name for (name,) in rows]


def _to(
    conn: Connection, statement: LiteralString, name: str, *, to: tuple[str, ...] = ROLES
) -> None:
    roles = sql.SQL(", ").join(map(sql.Identifier, to))
    conn.execute(sql.SQL(statement).format(sql.Identifier(name), roles=roles))


def _select(conn: Connection, table: str) -> LiteralString:
    """The right to read a table, without the columns of it that are hidden."""
    if table not in HIDDEN:
        return "grant select on {0} to {roles}"
    row = conn.execute(
        """
        select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
         where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped
           and attname <> all(%s)
        """,
        (table, HIDDEN[table]),
    ).fetchone()
    assert row
    columns: LiteralString = row[0]
    return "grant select (" + columns + ") on {0} to {roles}"


def _let_log(conn: Connection) -> None:
    """Let them keep their statements out of Postgres' log (db/core/connections.py), where we may."""
    for role in ROLES:
        for name in LOGGED:
            may = conn.execute(
                """
                select has_parameter_privilege(%(role)s, %(name)s, 'set') is not true
                   and (select rolsuper from pg_roles where rolname = current_user)
                """,
                {"role": role, "name": name},
            ).fetchone()
            if may == (True,):
                what = (sql.Identifier(name), sql.Identifier(role))
                conn.execute(sql.SQL("grant set on parameter {} to {}").format(*what))
