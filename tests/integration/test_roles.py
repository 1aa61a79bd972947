"""Roles of least right: what each may, table by table, and what of another user it never sees."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from psycopg import Connection, errors

from db.core import migrate, pool, roles
from db.core.codes import refusal
from db.core.migrate import MigrationRefused
from db.core.owners import fitness
from db.jobs import messages
from db.operations import upkeep
from tests.conftest import Configure
from tests.databases import execute
from tests.invariants import violations
from tests.ledger import ask, begun, commit
from tests.machine import needs_pgbouncer
from tests.pooler import pgbouncer
from tests.roles import gone, login, speaking
from tests.running import AtWork, P, U
from worker import relay
from worker.client import (
    Build,
    KeyConflict,
    Update,
    WrongUser,
    cancel,
    enqueue,
    job,
    retry,
    speak_for,
    wait,
)

Login = Callable[[str], str]
KINDS = ("select", "insert", "update", "delete", "truncate", "references", "trigger")


@pytest.fixture
def as_role(dsn: str) -> Iterator[Login]:
    """`as_role("baton_reader")`: the URL of a login that is in it."""
    made = list[str]()

    def make(role: str) -> str:
        made.append(login(dsn, role))
        return made[-1]

    yield make
    for url in made:
        gone(url, dsn)


@pytest.fixture
def two(conn: Connection) -> Connection:
    """Ann and bob, who have a project each with rows in every table of theirs."""
    for user in ("ann", "bob"):
        first = begun(conn, project=f"of-{user}", user_id=user, key="k")
        commit(conn, first, chat=[("user", user)], new_version=True, version_id=f"v-{user}")
        for _ in range(2):
            chat = begun(conn, "chat_plan", f"of-{user}", user_id=user)
            assert commit(conn, chat, source="chat_plan", chat_plan=True)
        more = {"project": f"of-{user}", "user": user, "chain": first.chain_id}
        for table, columns in (
            ("branches (project_id, user_id, lane, from_session, head)", "'b', 'a', 'a'"),
            ("webhooks (project_id, user_id, chain_id, url, host)", "%(chain)s, 'u', 'h'"),
        ):
            conn.execute(
                f"insert into {table} values (%(project)s, %(user)s, {columns})".encode(), more
            )
        conn.execute("select baton_set_check(%(project)s, to_jsonb('true'::text))", more)
        conn.execute(
            """
            insert into checks (job_id, attempt, project_id, round, number, command, outcome,
                                duration_ms, output_head, output_tail, output_bytes)
            values (%(chain)s, gen_random_uuid(), %(project)s, 0, 1, 'true', 'passed', 1, '', '', 0)
            """,
            more,
        )
    conn.execute("update session_transitions set created_at = '2026-01-05Z'")
    ask(conn, project="of-ann", user_id="ann")
    assert upkeep.archive_transitions(conn, timedelta(days=30)) == 2
    return conn


def why(conn: Connection, **asked: object) -> str | None:
    """The code of the refusal of a request."""
    with pytest.raises(psycopg.Error) as caught:
        ask(conn, **cast(Any, asked))
    told = refusal(caught.value)
    return told.code if told else None


def test_every_table_is_given_to_each_role_as_it_is_listed(conn: Connection, as_role: Login):
    as_role(roles.WORKER)
    held = dict[str, dict[str, set[str]]]()
    for table, role, kind in conn.execute(
        """
        select c.relname, r.role, k.kind
          from pg_class c, unnest(%s::text[]) as r (role), unnest(%s::text[]) as k (kind)
         where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v')
           and not c.relispartition and (has_table_privilege(r.role, c.oid, k.kind)
               or k.kind = 'select' and has_any_column_privilege(r.role, c.oid, k.kind))
        """,
        (list(roles.ROLES), list(KINDS)),
    ):
        held.setdefault(role, {}).setdefault(kind, set()).add(table)
    views = {*roles.VIEWS, "sessions_kept"}
    written = {*roles.BOUND, *roles.INNER}
    every = {name for (name,) in conn.execute(
        """
        select relname from pg_class where relnamespace = 'public'::regnamespace
           and relkind in ('r', 'p', 'v') and not relispartition
        """
    )}  # fmt: skip
    assert every == written | views | {roles.LOOKED_AT}, "each is listed in db/core/roles.py"
    assert held == {
        roles.WORKER: {
            "select": every, "insert": written, "update": written, "delete": written,
        },
        roles.PRODUCER: {"select": set(roles.RESULTS)},
        roles.READER: {"select": {*roles.BOUND, *roles.VIEWS}},
    }  # fmt: skip


@pytest.mark.parametrize("role", [roles.PRODUCER, roles.READER])
def test_who_speaks_for_one_user_sees_and_changes_nothing_of_anothers(
    two: Connection, as_role: Login, role: str
):
    url = as_role(role)
    readable = roles.RESULTS if role == roles.PRODUCER else roles.BOUND
    hidden = {"turns": "project_id"}
    with speaking(url, "ann") as ann, speaking(url, None) as nobody:
        for table in readable:
            column = hidden.get(table, "*")
            rows = ann.execute(f"select t.project_id from {table} t".encode()).fetchall()
            assert set(rows) == {("of-ann",)}, table
            assert nobody.execute(f"select {column} from {table}".encode()).fetchall() == [], (
                table
            )
        for view in roles.VIEWS if role == roles.READER else ():
            rows = ann.execute(f"select project_id from {view}".encode()).fetchall()
            assert set(rows) <= {("of-ann",)}, view
        for table in (*roles.BOUND, *roles.INNER, roles.LOOKED_AT):
            for statement in (
                f"delete from {table}",
                f"insert into {table} default values",
                f"truncate {table} cascade",
                f"alter table {table} disable row level security",
            ):
                with pytest.raises(errors.InsufficientPrivilege):
                    ann.execute(statement.encode())
        with pytest.raises(errors.InsufficientPrivilege):
            ann.execute("select token_hash from turns")
        with pytest.raises(errors.InsufficientPrivilege):
            ann.execute("set role baton_worker")
    assert two.execute("select count(*) from projects").fetchone() == (2,)


def test_a_producer_asks_for_the_user_that_it_speaks_for_and_for_no_other(
    two: Connection, as_role: Login, configure: Configure
):
    url = as_role(roles.PRODUCER)
    with psycopg.connect(url) as conn:
        speak_for(conn, "ann")
        asked = enqueue(
            conn,
            Update(
                project="of-ann",
                user="ann",
                prompt="go on",
                busy="replace",
                race=2,  # where the project's own check counts
            ),
        )
        assert job(conn, asked.id) == asked
        with pytest.raises(WrongUser) as refused:
            enqueue(conn, Update(project="of-bob", user="bob", prompt="mine now"))
        assert (refused.value.code, refused.value.field) == ("wrong_user", "user")
        conn.commit()  # the chain that was replaced tells its webhook then
        with pytest.raises(WrongUser):
            enqueue(conn, Build(project="new", user="ann", prompt="for nobody"))
    with speaking(url, "ann") as conn:
        assert why(conn, project="of-bob", user_id="ann") == "project_unavailable"
    with speaking(url, "_template") as conn:
        assert why(conn, project="t", user_id="_template", operator=True) == "bad_input"
    configure(DATABASE_URL=url)
    two.execute(
        "update jobs set state = 'cancelled', finished_at = now() where id = %s", (asked.id,)
    )
    assert wait(asked.id, user="ann").state == "cancelled"
    with pytest.raises(LookupError):
        wait(asked.id, user="bob")


def test_a_producer_cancels_and_retries_what_is_its_users_and_hears_nothing_of_anothers(
    two: Connection, as_role: Login
):
    waiting = {user: ask(two, project=f"of-{user}", user_id=user) for user in ("ann", "bob")}
    (ended,) = two.execute(
        "select id from jobs where user_id = 'bob' and state = 'done' limit 1"
    )
    of_bob = [waiting["bob"], ended[0], uuid4()]  # the last is nobody's
    before = two.execute("select count(*) from jobs").fetchone()
    url = as_role(roles.PRODUCER)
    with speaking(url, "ann") as ann:
        for one in of_bob:
            told = ann.execute(
                "select baton_cancel(%s), baton_retry(%s)", (one, one)
            ).fetchone()
            assert told == (False, None)
            assert cancel(ann, one) is retry(ann, one) is None
        assert two.execute("select from revoked_tasks").rowcount == 0
        assert two.execute("select count(*) from jobs").fetchone() == before

        assert retry(ann, waiting["ann"]) is None  # it has not ended
        assert cancel(ann, waiting["ann"])
        assert messages.cancel_revoked(two) == 1
        after = job(ann, waiting["ann"])
        assert after
        assert after.state == "cancelled"
        assert ann.execute("select baton_cancel(%s)", (after.id,)).fetchone() == (False,)
        again = retry(ann, after.id, fresh=True, key="again")
        assert again
        assert retry(ann, after.id, fresh=True, key="again") == again
        with pytest.raises(KeyConflict):
            retry(ann, after.id, key="again")
        assert (again.retry_of, again.user_id, again.state) == (after.id, "ann", "queued")
        assert retry(ann, after.id, user="bob") is None
    with speaking(url, None) as nobody:
        for call in (b"baton_cancel", b"baton_retry"):
            with pytest.raises(psycopg.Error) as refused:
                nobody.execute(b"select " + call + b"(gen_random_uuid())")
            told = refusal(refused.value)
            assert told
            assert told.code == "wrong_user"
    with speaking(as_role(roles.READER), "ann") as reader:
        for call in (b"baton_cancel", b"baton_retry"):
            with pytest.raises(errors.InsufficientPrivilege):
                reader.execute(b"select " + call + b"(gen_random_uuid())")


def test_a_temporary_table_of_a_producers_is_not_taken_for_one_of_ours(
    two: Connection, as_role: Login
):
    """It would be filled, and what hangs on it be done, with the rights of the tables' owner."""
    with speaking(as_role(roles.PRODUCER), "ann") as conn:
        conn.execute("create temp table jobs (like public.jobs including all)")
        conn.execute("create temp table projects (like public.projects including all)")
        conn.execute(
            "insert into pg_temp.projects (project_id, user_id) values ('of-bob', 'ann')"
        )
        assert why(conn, project="of-bob", user_id="ann") == "project_unavailable"
        asked = ask(conn, project="of-ann", user_id="ann")
        assert conn.execute("select count(*) from pg_temp.jobs").fetchone() == (0,)
    assert two.execute("select 1 from jobs where id = %s", (asked,)).fetchone()


def test_roles_made_twice_stay_and_a_later_migration_gives_what_is_missing(
    dsn: str, conn: Connection, as_role: Login
):
    reader = as_role(roles.READER)
    assert migrate.migrate(dsn, with_roles=True) == []
    conn.execute("drop policy baton_own on jobs")
    conn.execute("revoke select on events from baton_reader")
    conn.execute("alter view session_chain reset (security_invoker)")
    migrate.migrate(dsn, with_roles=True)
    conn.execute("update baton_migrations set digest = '' where name = 'functions/views.sql'")
    assert migrate.migrate(dsn) == ["functions/views.sql"]
    ask(conn, project="of-bob", user_id="bob")
    with speaking(reader, "ann") as ann:
        for table in ("jobs", "events", "session_chain"):
            assert ann.execute(f"select * from {table}".encode()).fetchall() == []
    assert conn.execute(
        "select reloptions from pg_class where relname = 'session_chain'"
    ).fetchone() == (["security_invoker=true"],)


def test_who_may_not_create_roles_is_told_so_in_a_sentence(postgres: str, empty_dsn: str):
    """Where they are there already, that right is not needed."""
    owner = login(empty_dsn, "")
    try:
        execute(empty_dsn, "create schema own")
        name = owner.partition("//")[2].partition(":")[0]
        execute(empty_dsn, f"alter schema own owner to {name}")
        execute(empty_dsn, f"alter role {name} set search_path to own")
        with psycopg.connect(empty_dsn) as look:
            there = look.execute(
                "select count(*) from pg_roles where rolname = any(%s)", (list(roles.ROLES),)
            ).fetchone()
        if there == (0,):
            with pytest.raises(MigrationRefused, match="may not create roles"):
                migrate.migrate(owner, with_roles=True)
            for role in roles.ROLES:
                execute(empty_dsn, f"create role {role} nologin")
        migrate.migrate(owner, with_roles=True)
        with psycopg.connect(owner) as conn:
            assert roles.given(conn)
    finally:
        execute(empty_dsn, "drop schema own cascade")
        execute(empty_dsn, f"drop owned by {owner.partition('//')[2].partition(':')[0]}")
        gone(owner, empty_dsn)


@needs_pgbouncer
@pytest.mark.agent("direct")
def test_a_worker_of_its_own_role_runs_a_whole_chain_through_a_pooler(
    at_work: AtWork, as_role: Login, dsn: str, tmp_path: Path, configure: Configure
):
    producer = as_role(roles.PRODUCER)
    with pgbouncer(as_role(roles.WORKER), tmp_path) as url:
        configure(DATABASE_URL=url)
        pool.close()
        with pool.connect() as at_work.conn:
            assert at_work.value("select pg_has_role(current_user, 'baton_worker', 'usage')")
            assert migrate.migrate(url) == []  # as `baton up` does, where it has nothing to do
            with speaking(producer, U) as conn:
                asked = enqueue(conn, Build(project=P, user=U, prompt="write a.txt: hello"))
            done = at_work.chain_of(asked.id)
            assert [(one.kind, one.state, one.error) for one in done] == [
                (kind, "done", None) for kind in ("build", "metadata", "compaction")
            ]
            upkeep.archive_transitions(at_work.conn, timedelta(0))
            for look in (relay.tend_once, relay.run_once, relay.cancel_revoked):
                look()
            assert fitness(at_work.conn)[0] == "ok"
            assert violations(at_work.conn, stored=True) == []
            with pytest.raises(errors.InsufficientPrivilege):
                at_work.conn.execute("create table public.more ()")
        pool.close()
    with speaking(producer, U) as conn:
        assert {one.state for one in (job(conn, each.id) for each in done) if one} == {"done"}


def test_a_job_cannot_be_of_a_chain_that_is_anothers(two: Connection):
    with pytest.raises(errors.ForeignKeyViolation):
        two.execute(
            """
            insert into jobs (chain_id, project_id, user_id, kind)
            select chain_id, 'of-ann', 'ann', 'metadata' from jobs where user_id = 'bob' limit 1
            """
        )
    with pytest.raises(errors.ForeignKeyViolation):
        two.execute("update webhooks set user_id = 'ann' where user_id = 'bob'")
