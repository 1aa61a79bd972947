"""Migrations: on nothing, beside a product's tables, twice, at once, and refused."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection

from db.core import migrate, migration_files, owners
from db.core.migrate import FILES, FUNCTIONS, MigrationRefused, check_version, pending
from db.jobs import listing
from db.jobs.listing import Wanted
from db.projects import projects
from db.sessions import chat
from tests.invariants import violations
from tests.ledger import ask, begun, commit, one

FOUND = migration_files.read(FILES)
LATE = [file.name for file in FOUND if file.late]
ONCE = [file.name for file in FOUND if not file.late]
NAMES = [*ONCE, *sorted(f"functions/{file.name}" for file in FUNCTIONS.glob("*.sql")), *LATE]

# A product that had tables of these names, some as its own plans describe them.
PRODUCT: LiteralString = """
    create table projects (
        project_id varchar(64) primary key, user_id varchar(64) not null,
        title text not null, last_ai_session_id varchar(255));
    create table project_versions (
        id serial primary key, project_id varchar(64) not null references projects,
        version_id varchar(64), label text not null, created_at timestamp not null default now());
    create table session_transitions (
        id serial primary key, project_id varchar(64) not null, version_id varchar(64),
        old_session_id varchar(255), new_session_id varchar(255) not null,
        source varchar(50) not null, created_at timestamptz default now());
    create table project_ai_session_metrics (
        session_id varchar(255) primary key, project_id varchar(64) not null,
        shard int not null default 1);
    create table project_chat_log_minimal (
        id bigserial primary key, project_id varchar(64) not null, role varchar(20) not null,
        content text not null, mood text);
    create table chat_plan_sessions (
        session_id varchar(255) primary key, project_id varchar(64) not null);
    insert into projects values ('old', 'ann', 'Shop', null), ('kept', 'ann', 'Cafe', 'theirs');
    insert into project_versions (project_id, version_id, label) values ('old', 'v7', 'seventh');
    insert into session_transitions (project_id, old_session_id, new_session_id, source)
    values ('kept', 'before', 'before', 'metadata_generation');
    insert into project_chat_log_minimal (project_id, role, content) values ('old', 'user', 'hi');
"""


@pytest.fixture
def empty(empty_dsn: str) -> Any:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return Path(copytree(FILES, tmp_path / "migrations"))


@pytest.fixture
def whole(files: Path) -> Path:
    """A copy of the migrations, with the functions beside them."""
    copytree(FUNCTIONS, files.with_name("functions"))
    return files


def test_an_empty_schema_gets_every_file_in_order(empty: Connection, empty_dsn: str):
    assert sorted(pending(empty)) == sorted(NAMES)
    assert migrate.migrate(empty_dsn) == NAMES
    assert pending(empty) == []
    rows = empty.execute("select name from baton_migrations order by applied_at, name")
    assert [name for (name,) in rows] == NAMES


def test_functions_that_changed_are_applied_again_and_nothing_else(
    empty: Connection, empty_dsn: str, whole: Path
):
    migrate.migrate(empty_dsn, files=whole)
    refusals = whole.with_name("functions") / "requests.sql"
    refusals.write_text(refusals.read_text().replace("The prompt is empty", "No prompt"))
    assert migrate.migrate(empty_dsn, files=whole) == ["functions/requests.sql"]
    with pytest.raises(psycopg.Error, match="No prompt: say"):
        ask(empty, "build", prompt=" ")
    assert pending(empty) == ["functions/requests.sql"]  # this release has another text
    assert migrate.migrate(empty_dsn, files=whole) == []


def test_an_older_release_does_not_put_its_functions_over_a_newer_ones(
    empty: Connection, empty_dsn: str, whole: Path
):
    (whole / "9999_newer.sql").write_text("create table newer (n int)")
    refusals = whole.with_name("functions") / "requests.sql"
    refusals.write_text(refusals.read_text().replace("The prompt is empty", "No prompt"))
    migrate.migrate(empty_dsn, files=whole)
    assert pending(empty) == []
    assert migrate.migrate(empty_dsn) == []
    with pytest.raises(psycopg.Error, match="No prompt: say"):
        ask(empty, "build", prompt=" ")


def test_functions_that_fail_leave_all_of_them_as_they_were(
    empty: Connection, empty_dsn: str, whole: Path
):
    migrate.migrate(empty_dsn, files=whole)
    functions = whole.with_name("functions")
    refusals = functions / "requests.sql"
    refusals.write_text(refusals.read_text().replace("The prompt is empty", "No prompt"))
    (functions / "zzz.sql").write_text("select 1 / 0")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate.migrate(empty_dsn, files=whole)
    with pytest.raises(psycopg.Error, match="The prompt is empty"):
        ask(empty, "build", prompt=" ")


def test_a_second_run_does_nothing(empty: Connection, empty_dsn: str):
    migrate.migrate(empty_dsn)
    before = shape(empty)
    assert migrate.migrate(empty_dsn) == []
    assert shape(empty) == before


def test_two_at_once_apply_each_file_once(empty_dsn: str):
    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(migrate.migrate, [empty_dsn] * 4))
    assert sorted(name for names in applied for name in names) == sorted(NAMES)


def test_a_file_that_changed_since_is_refused(empty_dsn: str, files: Path):
    migrate.migrate(empty_dsn, files=files)
    changed = files / NAMES[0]
    changed.write_text(changed.read_text() + "\n-- more")
    with pytest.raises(
        MigrationRefused, match=f"{NAMES[0]} has changed.*put the change into a"
    ):
        migrate.migrate(empty_dsn, files=files)


def test_a_file_that_fails_leaves_nothing_and_those_before_it_stay(
    empty: Connection, empty_dsn: str, files: Path
):
    (files / "9999_broken.sql").write_text("create table half (n int); select 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate.migrate(empty_dsn, files=files)
    assert one(empty, "select to_regclass('half')") is None
    assert sorted(pending(empty)) == sorted(NAMES[len(ONCE) :])
    assert one(empty, "select count(*) from baton_migrations") == len(ONCE)


def test_a_schema_of_its_own_is_chosen_by_the_url(empty: Connection, empty_dsn: str):
    empty.execute("create schema baton")
    empty.execute("create table public.projects (id uuid primary key)")  # not ours to touch
    in_schema = f"{empty_dsn}?options=-csearch_path%3Dbaton"
    assert migrate.migrate(in_schema) == NAMES
    assert one(empty, "select count(*) from pg_class where relname = 'jobs'") == 1
    # A producer with another search_path asks by the function's whole name.
    job = one(empty, "select baton.baton_enqueue('build', 'p', 'u', 'make it')")
    assert one(empty, "select id from baton.jobs") == job


def test_two_schemas_of_one_database_stand_alone(empty: Connection, empty_dsn: str):
    empty.execute(b"create schema one; create schema two")
    for schema in ("one", "two"):
        assert migrate.migrate(f"{empty_dsn}?options=-csearch_path%3D{schema},public") == NAMES
    for schema in (b"one", b"two"):
        with pytest.raises(psycopg.errors.CheckViolation):
            empty.execute(
                b"insert into " + schema + b".session_transitions"
                b" (project_id, new_session_id, source) values ('p', 's', 'nonsense')"
            )


def test_a_search_path_that_leads_nowhere_is_refused(empty_dsn: str):
    with pytest.raises(MigrationRefused, match="create it first"):
        migrate.migrate(f"{empty_dsn}?options=-csearch_path%3Dnowhere")


def test_a_role_that_may_not_create_is_told_so(empty: Connection, empty_dsn: str):
    empty.execute("create role nobody_here login password 'none'")
    try:
        with pytest.raises(MigrationRefused, match="migrate as the owner"):
            migrate.migrate(f"postgresql://nobody_here:none@{empty_dsn.rpartition('@')[2]}")
    finally:
        empty.execute("drop role nobody_here")


@pytest.mark.parametrize(
    ("server", "old"), [(130_014, True), (140_000, False), (180_001, False)]
)
def test_a_postgres_that_is_too_old_is_refused(server: int, old: bool):
    if not old:
        check_version(server)
        return
    with pytest.raises(MigrationRefused, match="Postgres 13 is too old: Baton needs 14"):
        check_version(server)


def test_a_products_tables_are_kept_and_completed(empty: Connection, empty_dsn: str):
    empty.execute(PRODUCT)
    before = shape(empty)
    migrate.migrate(empty_dsn)
    after = shape(empty)
    assert {name: after[name] for name in before} == before
    assert "projects.event_seq" in after
    assert "project_ai_session_metrics.is_resumable" in after
    assert one(empty, "select label from project_versions") == "seventh"
    assert one(empty, "select mood from project_chat_log_minimal") is None
    assert migrate.migrate(empty_dsn) == []


def test_moves_of_before_get_the_files_that_are_known(
    empty: Connection, empty_dsn: str, files: Path
):
    later = [file for file in files.glob("*.sql") if file.name >= "0006"]
    for file in later:
        file.unlink()
    migrate.migrate(empty_dsn, files=files)
    empty.execute(
        """
        insert into projects (project_id, user_id, last_ai_session_id) values ('p', 'u', 'c');
        insert into project_versions (project_id, version_id, ai_session_id, tree)
        values ('p', 'v1', 'b', 'tree of v1'), ('p', 'v2', 'c', 'tree of v2');
        insert into session_transitions (project_id, version_id, old_session_id,
                                         new_session_id, source)
        values ('p', 'v1', null, 'a', 'build'), ('p', 'v1', 'a', 'b', 'metadata'),
               ('p', 'v2', 'b', 'c', 'update')
        """
    )
    migrate.migrate(empty_dsn)
    found = empty.execute("select new_session_id, tree from session_transitions order by id")
    assert found.fetchall() == [("a", None), ("b", "tree of v1"), ("c", "tree of v2")]


def test_files_that_versions_had_noted_are_noted_with_their_sessions(
    empty: Connection, empty_dsn: str, files: Path
):
    for file in files.glob("*.sql"):
        if file.name >= "0013":
            file.unlink()
    migrate.migrate(empty_dsn, files=files)
    empty.execute(
        """
        insert into projects (project_id, user_id, last_ai_session_id) values ('p', 'u', 'e');
        insert into project_versions (project_id, version_id, ai_session_id, digest_files,
                                      digest_documentation)
        values ('p', 'v1', 'a', '["a.txt"]', 'of a'), ('p', 'v2', 'b', null, null);
        insert into project_ai_session_metrics (session_id, project_id, parent_session_id, step)
        values ('a', 'p', null, 'build'), ('b', 'p', 'a', 'build'), ('c', 'p', 'b', 'build'),
               ('d', 'p', 'c', null), ('e', 'q', 'a', 'build')
        """
    )
    migrate.migrate(empty_dsn)
    found = empty.execute(
        """
        select session_id, old_session_id, digest_files, digest_documentation
          from project_ai_session_metrics order by 1
        """
    )
    assert found.fetchall() == [
        ("a", None, ["a.txt"], "of a"),
        ("b", "a", None, None),
        ("c", "b", None, None),
        ("d", None, None, None),  # of an attempt that died: it was never in the line
        ("e", None, None, None),  # begun from a template
    ]
    past = chat.past(empty, "p", lane="main", head="c", user_id="u")
    assert (past.files, past.documentation) == (["a.txt"], "of a")


def test_jobs_put_off_to_times_that_no_program_can_read_are_mended(
    empty: Connection, empty_dsn: str, files: Path
):
    for file in files.glob("*.sql"):
        if file.name >= "0020":
            file.unlink()
    migrate.migrate(empty_dsn, files=files)
    for run_at in ("infinity", "-infinity", "20000-01-01", "4000-01-01 BC", "2020-01-01"):
        empty.execute(
            """
            insert into jobs (id, chain_id, project_id, user_id, kind, run_at, publish_after)
            select id, id, 'p', 'u', 'build', %(at)s, %(at)s from gen_random_uuid() id
            """,
            {"at": run_at},
        )
    migrate.migrate(empty_dsn)
    assert sorted({job.run_at.year for job in listing.jobs(empty, Wanted())}) == [
        2000,
        2020,
        9999,
    ]
    empty.execute("update jobs set state = 'cancelled', finished_at = now()")


def test_a_function_whose_arguments_changed_is_replaced_and_never_missing(
    empty: Connection, empty_dsn: str
):
    migrate.migrate(empty_dsn)
    empty.execute(
        """
        create function baton_enqueue(text, text, text, text, text, text, text, int, timestamptz,
            text, jsonb, uuid, timestamptz, int) returns uuid language sql as 'select null::uuid';
        delete from baton_migrations where name = 'functions/enqueue.sql'
        """
    )
    assert migrate.migrate(empty_dsn) == ["functions/enqueue.sql"]
    assert one(empty, "select count(*) from pg_proc where proname = 'baton_enqueue'") == 1
    assert ask(empty)


def test_turns_of_branches_that_were_promoted_before_are_known_by_their_jobs(
    empty: Connection, empty_dsn: str, files: Path
):
    for file in files.glob("*.sql"):
        if file.name >= "0015":
            file.unlink()
    migrate.migrate(empty_dsn, files=files)
    empty.execute(
        """
        insert into jobs (id, chain_id, project_id, user_id, kind, lane)
        select id, id, 'p', 'u', 'build', lane
          from (values (gen_random_uuid(), 'main'), (gen_random_uuid(), 'branch-x')) j (id, lane);
        insert into project_ai_session_metrics (session_id, project_id, step, job_id)
        select 'of ' || lane, 'p', 'build', id from jobs
        """
    )
    migrate.migrate(empty_dsn)
    found = empty.execute("select session_id, source from turn_costs")
    assert dict(found.fetchall()) == {"of main": "unknown", "of branch-x": "branch"}


def test_a_products_project_is_built_without_a_workspace_of_its_own(
    empty: Connection, empty_dsn: str
):
    empty.execute(PRODUCT)
    migrate.migrate(empty_dsn)
    job = begun(empty, "update", "old", user_id="ann", version="v7")
    assert job.workspace
    assert job.workspace.endswith("/old")
    commit(empty, job, version_id="v7", new_version=True, chat=[("user", "x")])
    version = projects.latest_version(empty, "old")
    assert version
    assert version.ai_session_id
    assert violations(empty) == []


def test_a_head_that_the_product_set_begins_the_path(empty: Connection, empty_dsn: str):
    empty.execute(PRODUCT)
    migrate.migrate(empty_dsn)
    newest = projects.session_chain(empty, "kept")[0]
    assert (newest["source"], newest["reason"]) == ("operator", "adopted")
    assert (newest["old_session_id"], newest["new_session_id"]) == ("before", "theirs")
    assert one(empty, "select distinct sync_status from session_sync") == "SYNCED"
    commit(empty, begun(empty, "chat_plan", "kept", user_id="ann"), source="chat_plan")
    assert violations(empty) == []


def test_a_project_that_only_the_product_can_create_is_refused_with_a_sentence(
    empty: Connection, empty_dsn: str
):
    empty.execute(PRODUCT)
    migrate.migrate(empty_dsn)
    with pytest.raises(
        psycopg.Error, match=r"cannot be created here.*title.*in your product first"
    ):
        ask(empty, "chat_plan", "new")
    assert one(empty, "select count(*) from jobs") == 0


def test_a_version_that_only_the_product_can_create_is_asked_for_before_the_turn(
    empty: Connection, empty_dsn: str
):
    empty.execute(PRODUCT)
    migrate.migrate(empty_dsn)
    for version in (None, "v8"):
        with pytest.raises(
            psycopg.Error, match=r"project_versions.label.*insert the version first"
        ):
            ask(empty, "update", "old", user_id="ann", version=version)
    assert ask(empty, "update", "old", user_id="ann", version="v7")


REFUSED: list[tuple[LiteralString, str]] = [
    ("create table projects (project_id uuid, user_id text)", "projects.project_id is uuid"),
    ("create table projects (id text primary key)", "no column project_id"),
    ("create table jobs (id serial)", "There is a table jobs already"),
    ("create view events as select 1 as n", "There is a table events already"),
    ("create table session_transitions (id uuid)", "session_transitions.id is uuid"),
    (
        "create table chat_plan_sessions (session_id text, plan text not null)",
        "chat_plan_sessions.plan must not be null",
    ),
    (
        "create table project_ai_session_metrics (version_id text not null default '')",
        "version_id must not be null",
    ),
]


def test_what_ours_cannot_work_with_is_refused_before_anything_is_written(
    empty: Connection, empty_dsn: str, subtests: pytest.Subtests
):
    for theirs, sentence in REFUSED:
        with subtests.test(sentence):
            empty.execute("drop schema public cascade; create schema public")
            empty.execute(theirs)
            before = shape(empty)
            with pytest.raises(MigrationRefused, match=sentence) as refused:
                migrate.migrate(empty_dsn)
            assert "give Baton a schema of its own" in str(refused.value)
            assert shape(empty) == before


def test_the_ledger_refers_to_no_table_of_the_product(conn: Connection):
    referred = "select count(*) from pg_constraint where contype = 'f' and confrelid <> 'jobs'::regclass"
    assert one(conn, referred) == 0


def test_the_contracts_indexes_are_there(conn: Connection):
    rows = conn.execute("select indexname from pg_indexes where schemaname = 'public'")
    assert {name for (name,) in rows} >= {
        *("idx_project_versions_session", "idx_session_transitions_project"),
        *("idx_session_transitions_new_session", "jobs_lane", "jobs_ready", "jobs_key"),
    }


def test_what_a_reader_must_know_is_said_in_comments(conn: Connection):
    rows = conn.execute(
        """
        select c.relname || coalesce('.' || a.attname, '')
          from pg_description d join pg_class c on c.oid = d.objoid
          left join pg_attribute a on a.attrelid = c.oid and a.attnum = d.objsubid
                                  and d.objsubid > 0
         where d.classoid = 'pg_class'::regclass
        """
    )
    assert {name for (name,) in rows} >= {
        *("session_transitions", "project_versions.ai_session_id", "jobs.state"),
        *("projects.last_ai_session_id", "project_ai_session_metrics.cost_usd", "events"),
    }


IMPOSSIBLE: tuple[LiteralString, ...] = (
    "update jobs set finished_at = now()",
    "update jobs set state = 'done'",
    "update jobs set state = 'lost'",
    "update jobs set kind = 'other'",
    "update jobs set state = 'running', lease_until = now(), attempt = null",
    "update jobs set state = 'running', attempt = gen_random_uuid()",
    "update jobs set state = 'failed', finished_at = now(), lease_until = now()",
    "insert into session_transitions (project_id, new_session_id, source)"
    " values ('p', 's', 'metadata_generation')",
    "insert into project_ai_session_metrics (project_id, session_id, status)"
    " values ('p', 's', 'lost')",
)


def test_a_row_cannot_say_what_cannot_be(conn: Connection, subtests: pytest.Subtests):
    ask(conn)
    for statement in IMPOSSIBLE:
        with subtests.test(statement), pytest.raises(psycopg.errors.CheckViolation):
            conn.execute(statement)


def shape(conn: Connection) -> dict[str, tuple[str, str]]:
    """Every column of the schema: its type, and whether it may be null."""
    rows = conn.execute(
        """
        select table_name || '.' || column_name, data_type, is_nullable
          from information_schema.columns where table_schema = 'public'
        """
    )
    return {name: (kind, nullable) for name, kind, nullable in rows}


def test_chains_of_two_owners_that_were_there_before_are_counted_and_no_more_are_made(
    empty: Connection, empty_dsn: str, files: Path
):
    for file in files.glob("*.sql"):
        if file.name >= "0044":
            file.unlink()
    migrate.migrate(empty_dsn, files=files)
    strange = "insert into jobs (chain_id, project_id, user_id, kind) values (gen_random_uuid(), 'p', 'u', 'build')"
    empty.execute(strange)
    migrate.migrate(empty_dsn)
    state, text = owners.fitness(empty)
    assert state == "warn"
    assert text.startswith("1 rows of jobs name a chain of another project or user")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        empty.execute(strange)
    empty.execute("update jobs set state = 'cancelled', finished_at = now()")
    empty.execute("update jobs set chain_id = id")
    empty.execute(text.partition("`")[2].partition("`")[0].encode())
    assert owners.fitness(empty)[0] == "ok"
