"""Rules of the product's own tables: what they will not take is said before a turn is paid."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import LiteralString

import psycopg
import pytest
from psycopg import Connection

from db.core import migrate
from db.core.migrate import MigrationRefused
from db.core.product_rules import strange
from db.core.refusals import is_refused
from db.sessions.rehearsal import rehearse
from tests.commandline import Baton, bare, baton
from tests.ledger import ask, begun, blocked, built, commit, contents, finish, job_row, one
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.client import BadVersion, Build, enqueue
from worker.failures.sentences import for_people

pytestmark = pytest.mark.agent("direct")

__all__ = ["bare", "baton"]

ONE_ID: LiteralString = """
    create table project_versions (
        version_id varchar(64) primary key, project_id text not null,
        created_at timestamptz not null default now())"""


@pytest.fixture
def product(empty_dsn: str) -> Iterator[Connection]:
    """A product whose table of versions takes each id once, with our schema beside it."""
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(ONE_ID)
        migrate.migrate(empty_dsn)
        yield conn


def test_an_id_of_a_version_that_another_project_has_is_refused(product: Connection):
    built(product, "theirs", "v1")
    with pytest.raises(psycopg.Error, match=r"v1 is not free.*: name another") as told:
        ask(product, project="mine", version="v1")
    assert told.value.sqlstate == "BA012"
    assert ask(product, project="mine", version="v2")
    assert ask(product, "update", project="theirs", version="v1"), "it is its own"


def test_an_id_that_another_project_waits_for_is_refused_until_that_ends(product: Connection):
    waits = begun(product, project="theirs", version="v1")
    assert ask(product, "update", project="theirs", version="v1"), "of one project in order"
    product.execute(
        "update jobs set state = 'cancelled', finished_at = now() where id <> %s", (waits.id,)
    )
    with pytest.raises(psycopg.Error, match="version id v1 is not free"):
        ask(product, project="mine", version="v1")
    finish(product, waits, "failed")
    assert ask(product, project="mine", version="v1")


def test_of_two_that_ask_for_one_version_at_once_one_is_refused(
    product: Connection, empty_dsn: str
):
    with (
        psycopg.connect(empty_dsn) as first,
        psycopg.connect(empty_dsn, autocommit=True) as looker,
        ThreadPoolExecutor() as threads,
    ):
        ask(first, project="theirs", version="v1")
        waits = threads.submit(ask, product, project="mine", version="v1")
        wait_until(lambda: blocked(looker), description="the second to wait for the first")
        first.commit()
        with pytest.raises(psycopg.Error, match="version id v1 is not free"):
            waits.result(10)


def test_where_versions_are_of_their_project_two_may_have_one_id(conn: Connection):
    built(conn, "theirs", "v1")
    assert job_row(conn, built(conn, "mine", "v1").id) == "done"


def test_a_table_of_one_version_a_project_is_told(conn: Connection):
    conn.execute("create unique index on project_versions (project_id)")
    built(conn)
    with pytest.raises(psycopg.Error, match="one row a project: name that version"):
        ask(conn, "update")
    assert ask(conn, "update", version="v1")


SHORT: list[tuple[LiteralString, dict[str, str], str]] = [
    ("project_versions alter version_id type varchar(20)", {}, "name a shorter version"),
    (
        "session_transitions alter version_id type varchar(40)",
        {"version": "v" * 41},
        "session_transitions.version_id can hold .40 characters.",
    ),
    (
        "project_chat_log_minimal alter project_id type varchar(9)",
        {"project": "p" * 10},
        "The project id is longer than your product's project_chat_log_minimal.project_id",
    ),
    (
        "chat_plan_sessions alter user_id type varchar(3)",
        {"user_id": "anna"},
        "The user id is longer than your product's chat_plan_sessions.user_id",
    ),
]


def test_ids_that_a_column_cannot_hold_are_refused(conn: Connection):
    for change, more, sentence in SHORT:
        with conn.transaction(force_rollback=True):
            conn.execute(
                "drop view session_sync, session_chain cascade"
            )  # they use the columns
            conn.execute("alter table " + change)
            with pytest.raises(psycopg.Error, match=sentence), conn.transaction():
                ask(conn, **{"project": "p", **more})


NEVER: list[tuple[LiteralString, str]] = [
    (
        "create table session_transitions (id bigint, source text check (source in ('build', 'metadata')))",
        "session_transitions.source must not be 'update'.*allow it",
    ),
    (
        "create table project_chat_log_minimal (id bigint, role varchar(20) check (role <> 'assistant'))",
        "role must not be 'assistant'",
    ),
    (
        "create table session_transitions (id bigint, new_session_id varchar(32) not null)",
        "new_session_id holds 32 characters, and Baton writes 36: make it longer",
    ),
    ("create table project_versions (id bigint, tree varchar(20))", "tree holds 20 characters"),
]


def test_a_table_that_can_never_take_a_commit_is_refused_by_migrate(
    empty_dsn: str, subtests: pytest.Subtests
):
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        for theirs, sentence in NEVER:
            with subtests.test(sentence):
                conn.execute(theirs)
                with pytest.raises(MigrationRefused, match=sentence):
                    migrate.migrate(empty_dsn)
            conn.execute(b"drop table " + theirs.split()[2].encode())


def test_doctor_tells_of_a_rule_that_came_later(conn: Connection, baton: Baton):
    assert "can hold what jobs write" in baton("doctor").out
    conn.execute("alter table session_transitions add check (source <> 'fallback') not valid")
    assert "must not be 'fallback'" in baton("doctor").out


# What only a try shows, as it is made and what of it is told.
RULES: list[tuple[LiteralString, str]] = [
    (
        """
        insert into session_transitions (project_id, new_session_id, source)
        values ('another', 'its', 'build');
        create unique index once on session_transitions (source)
        """,
        "once",
    ),
    (
        "alter table project_versions add constraint numbered check (version_id ~ '^v[0-9]+$')",
        "numbered",
    ),
    (
        "alter table project_chat_log_minimal add constraint short check (length(content) > 1)",
        "short",
    ),
    (
        """
        create table shops (id text primary key);
        alter table project_versions add constraint of_shop foreign key (project_id) references shops not valid
        """,
        "of_shop",
    ),
    (
        """
        create function no() returns trigger language plpgsql as
            $$ begin raise exception 'not on Sundays'; end $$;
        create trigger no before insert on session_transitions for each row execute function no()
        """,
        "not on Sundays",
    ),
    (
        """
        create function late() returns trigger language plpgsql as
            $$ begin raise exception 'not today'; end $$;
        create constraint trigger late after insert on project_ai_session_metrics
            deferrable initially deferred for each row execute function late()
        """,
        "not today",
    ),
]


def test_a_commit_is_tried_out_and_leaves_nothing(conn: Connection, subtests: pytest.Subtests):
    for number, (rule, told) in enumerate(RULES):
        with subtests.test(told):
            project = f"p{number}"
            job = begun(conn, project=project)
            rehearse(conn, job)
            with conn.transaction(force_rollback=True):
                conn.execute(rule, prepare=False)
                before = contents(conn)
                assert strange(conn)
                with pytest.raises(psycopg.Error) as refused:
                    rehearse(conn, job)
                assert is_refused(refused.value)
                assert told in for_people(refused.value)
                assert contents(conn) == before
            commit(conn, job)


def test_tables_that_are_batons_own_are_not_tried_out(conn: Connection):
    assert not strange(conn)


def test_no_turn_is_paid_for_what_the_product_will_not_take(at_work: AtWork):
    at_work.build("write a.txt: a", version="v1")
    at_work.conn.execute(
        "alter table project_versions add constraint numbered check (version_id ~ '^v[0-9]+$')"
    )
    asked = len(at_work.model.requests)
    job = at_work.build("write b.txt: b")
    assert (job.state, job.attempts, job.error_class) == ("failed", 1, "refused_by_postgres")
    assert 'constraint "numbered" of table "project_versions"' in str(job.error)
    assert len(at_work.model.requests) == asked
    assert at_work.build("write b.txt: b", version="v2").state == "done"


def test_two_projects_that_both_say_v1_cost_one_turn(at_work: AtWork):
    at_work.conn.execute("create unique index on project_versions (version_id)")
    assert at_work.build("write a.txt: a", version="v1").state == "done"
    with pytest.raises(BadVersion, match="is not free"):
        enqueue(at_work.conn, Build(project="other", user=U, prompt="x", version="v1"))
    assert one(at_work.conn, "select count(*) from jobs where project_id <> %s", P) == 0
