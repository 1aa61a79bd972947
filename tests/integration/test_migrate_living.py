"""Migrations of a database that others work with: they wait for nobody long, nor anybody for them."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree

import psycopg
import pytest
from psycopg import Connection

from db.core import migration_files
from db.core.migrate import FILES, MigrationRefused, migrate
from tests.commandline import BATON
from tests.commandline import checkout as checkout
from tests.ledger import ask, one
from tests.waiting import wait_until

SECOND = 1.0  # that nobody may wait

# Texts that databases have seen, and that were written anew since.
SEEN = {
    "0001_ledger.sql": "99abab74f11fe01bbf75e0774d2484a87aab5fe3e958f591a8e136c5b9a28214",
    "0006_retention.sql": "87b0633a64ffbf2e21c48077e7d5e1e06f3022a97e0c1d7d8aa86f514bb86a4b",
    "0007_workspace_tree.sql": "526d10c0b6fb70e2e3b196c1c756cd3c0a3388c4b526bcd029b6eeab35b6f5bc",
    "0010_lineage.sql": "2da1d05e91a5f743e8741d868f22a650dad8d8b63907b2f0aabab9e6369e32a3",
    "0011_branch_ends.sql": "5553978e2f28f5f58dbdf76c6c917370f6bed3e5bf1c041a4ad3838ee1cdbfe6",
    "0013_noted_files.sql": "cff294bb97e15b475e8adb3ad1b6aa2d70b7c96914bf3cf638984432fd1e2ed9",
    "0015_promoted_turns.sql": "c2551f8b54ca55b5eb27b669e73b9a888ef9e2f7007d4938ed123435ac5b6de1",
    "0018_last_chance_index.sql": "f077d8b15efd4598bb4cc099a81985d4168f36a031bad2f1fbdc177070a52464",
    "0020_rules.sql": "49d9b2c093f639cad77cbd232bcdb15f58b79537762f7283b2746dfddcbd937a",
    "0021_places.sql": "78451194b3bba713611af8fa96676d7941d698d89111f359630497adb9cffd42",
    "0026_order.sql": "ec04e787c8fefe28dd40e46b876f1cc0922b6c9eb1e27eb9bf7eae61fcc59bf6",
}


@dataclass
class Run:
    """A migration under way in a thread of its own, and what it has told."""

    lines: list[str] = field(default_factory=list[str])
    ended: threading.Event = field(default_factory=threading.Event)
    raised: BaseException | None = None

    def told(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return Path(copytree(FILES, tmp_path / "migrations"))


def add(files: Path, text: str, name: str = "9998_more.sql") -> None:
    (files / name).write_text(text)


@contextmanager
def migrating(dsn: str, files: Path, patience: float = 60.0) -> Generator[Run]:
    run = Run()

    def work() -> None:
        try:
            migrate(dsn, files=files, tell=run.lines.append, patience=patience)
        except BaseException as exc:  # the test looks at it
            run.raised = exc
        run.ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield run
    finally:
        thread.join()


@contextmanager
def producer(dsn: str) -> Generator[Connection]:
    """One that has asked for a job, and has not committed yet."""
    with psycopg.connect(dsn, application_name="the shop") as conn:
        ask(conn)
        yield conn
        conn.commit()


def slowest(dsn: str, run: Run, *, seconds: float) -> float:
    """Let others ask for jobs all the while; the longest that one of them waited."""
    until, longest = time.monotonic() + seconds, 0.0
    with psycopg.connect(dsn, autocommit=True) as conn:
        while time.monotonic() < until and not run.ended.is_set():
            began = time.monotonic()
            ask(conn, project="q")
            longest = max(longest, time.monotonic() - began)
    return longest


def test_others_go_by_a_migration_that_waits_for_an_open_transaction(dsn: str, files: Path):
    add(files, "alter table jobs add column more int")
    with producer(dsn) as shop:
        with migrating(dsn, files) as run:
            assert slowest(dsn, run, seconds=1.5) < SECOND
            assert not run.ended.is_set()
            (line,) = run.lines
            assert f"9998_more.sql: pid {shop.info.backend_pid} (the shop of baton in" in line
            shop.commit()
        assert run.lines[-1] == "applied 9998_more.sql"
        assert run.raised is None


def test_one_that_never_gets_its_lock_ends_with_a_sentence_and_leaves_nothing(
    dsn: str, conn: Connection, files: Path
):
    add(files, "create table half (n int); alter table jobs add column more int")
    with producer(dsn), pytest.raises(MigrationRefused) as refused:
        migrate(dsn, files=files, patience=0.3)
    sentence = str(refused.value)
    assert "not applied within 0.3 s: pid " in sentence
    assert "(the shop of baton in a transaction for " in sentence
    assert "wait for its end, and migrate again" in sentence
    assert one(conn, "select to_regclass('half')") is None
    assert migrate(dsn, files=files) == ["9998_more.sql"]


def test_one_that_keeps_others_waiting_gives_way_and_ends_with_a_sentence(
    dsn: str, files: Path
):
    add(files, "lock table jobs; select pg_sleep(30)")
    with migrating(dsn, files, patience=1.0) as run:
        assert slowest(dsn, run, seconds=30) < SECOND
    assert "takes longer than others can wait for it" in str(run.raised)
    assert run.told("others waited for it: it is tried again")


def test_functions_and_views_are_replaced_as_gently(dsn: str, conn: Connection, files: Path):
    functions = Path(copytree(FILES.with_name("functions"), files.with_name("functions")))
    views = functions / "views.sql"
    views.write_text(views.read_text() + "\n-- changed")
    with psycopg.connect(dsn) as reader:
        reader.execute("select from session_sync")
        with migrating(dsn, files) as run:
            wait_until(lambda: run.told("functions and views: pid"), description="it waits")
            with ThreadPoolExecutor() as threads:  # whoever comes after it goes by
                threads.submit(conn.execute, "select from session_sync").result(SECOND)
            reader.commit()
    assert run.lines[-1] == "applied functions/views.sql"


def test_nobody_waits_for_an_index_that_waits_for_them(dsn: str, conn: Connection, files: Path):
    add(
        files, "-- step: by itself\ncreate index concurrently if not exists more on jobs (kind)"
    )
    with producer(dsn) as shop, migrating(dsn, files) as run:
        wait_until(
            lambda: run.told(f"pid {shop.info.backend_pid} (the shop"), description="told"
        )
        assert slowest(dsn, run, seconds=1) < SECOND / 2
        shop.commit()
    assert run.lines[-1] == "applied 9998_more.sql"
    assert one(conn, "select indisvalid from pg_index where indexrelid = 'more'::regclass")


def test_an_index_that_was_not_built_to_its_end_is_built_anew(
    dsn: str, conn: Connection, files: Path
):
    build = "create unique index concurrently if not exists more on jobs (user_id)"
    add(files, f"create table before (n int);\n-- step: by itself\n{build}")
    ask(conn)
    ask(conn)
    with pytest.raises(psycopg.errors.UniqueViolation):
        migrate(dsn, files=files)
    assert not one(conn, "select indisvalid from pg_index where indexrelid = 'more'::regclass")
    conn.execute("delete from jobs")
    lines = list[str]()
    assert migrate(dsn, files=files, tell=lines.append) == ["9998_more.sql"]
    assert one(conn, "select indisvalid from pg_index where indexrelid = 'more'::regclass")
    assert lines[0] == "9998_more.sql: more was not built to its end: it is made anew."


def test_an_index_that_waits_too_long_ends_with_a_sentence_and_the_next_run_builds_it(
    dsn: str, files: Path
):
    add(
        files, "-- step: by itself\ncreate index concurrently if not exists more on jobs (kind)"
    )
    with producer(dsn), pytest.raises(MigrationRefused, match=r"\(the shop of baton in a"):
        migrate(dsn, files=files, patience=0.3)
    assert migrate(dsn, files=files) == ["9998_more.sql"]


BATCHES = """
create table noted (n int);
-- step: in batches of 10 rows of counted by n
update counted set twice = 2 * n + 0 / (n - bad) where n between :first and :last;
-- step: in a transaction
insert into noted select count(*) from counted where twice = 2 * n;
"""


def test_a_rewrite_is_committed_batch_by_batch_and_gone_on_with_where_it_broke_off(
    dsn: str, conn: Connection, files: Path
):
    conn.execute("create table counted (n int primary key, twice int, bad int default 0)")
    conn.execute("insert into counted (n) select generate_series(1, 95)")
    conn.execute("update counted set bad = 55 where n = 55")
    add(files, BATCHES)
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(dsn, files=files)
    assert one(conn, "select count(*) from counted where twice = 2 * n") == 50
    conn.execute("update counted set bad = 0")
    assert migrate(dsn, files=files) == ["9998_more.sql"]  # `noted` is there
    assert one(conn, "select n from noted") == 95
    rows = conn.execute("select name from baton_migrations where name like '9998%'").fetchall()
    assert rows == [("9998_more.sql",)]


def test_how_far_a_long_rewrite_is_is_told(dsn: str, conn: Connection, files: Path):
    conn.execute("create table counted (n int primary key, twice int)")
    conn.execute("insert into counted (n) select generate_series(1, 50)")
    conn.execute("analyze counted")
    add(
        files,
        "-- step: in batches of 10 rows of counted by n\n"
        "update counted set twice = 2 * n from pg_sleep(0.3) where n between :first and :last",
    )
    lines = list[str]()
    migrate(dsn, files=files, tell=lines.append)
    assert re.fullmatch(r"9998_more.sql: [345]0 of about 50 rows of counted\.", lines[0])
    assert lines[1:] == ["applied 9998_more.sql"]


def test_a_batch_waits_for_no_row_that_somebody_holds(dsn: str, conn: Connection, files: Path):
    conn.execute("create table counted (n int primary key, twice int, bad int default 0)")
    conn.execute("insert into counted (n) select generate_series(1, 25)")
    add(files, BATCHES)
    with psycopg.connect(dsn, application_name="the shop") as shop:
        shop.execute("update counted set bad = 0 where n = 15")
        with migrating(dsn, files) as run:
            wait_until(lambda: run.told("(the shop of baton"), description="it is told")
            conn.execute("set lock_timeout = '500ms'")
            conn.execute("update counted set bad = 0 where n = 11")  # of the same batch
            shop.commit()
    assert run.raised is None
    assert one(conn, "select n from noted") == 25


@pytest.mark.parametrize("name", SEEN)
def test_a_text_that_was_applied_is_known_after_the_file_was_written_anew(
    dsn: str, conn: Connection, name: str
):
    conn.execute("update baton_migrations set digest = %s where name = %s", (SEEN[name], name))
    assert migrate(dsn) == []


def test_a_second_run_waits_for_the_first_and_no_index_waits_for_it(dsn: str, files: Path):
    add(
        files, "-- step: by itself\ncreate index concurrently if not exists more on jobs (kind)"
    )
    with producer(dsn) as shop, migrating(dsn, files) as first:
        wait_until(lambda: first.told("the shop"), description="the first waits for the shop")
        with migrating(dsn, files) as second:
            wait_until(
                lambda: second.told("Another run"), description="the second for the first"
            )
            with pytest.raises(MigrationRefused, match="Another run of `baton migrate`"):
                migrate(dsn, files=files, patience=0.1)
            shop.commit()
    assert (first.raised, first.lines[-1]) == (None, "applied 9998_more.sql")
    assert (second.raised, len(second.lines)) == (None, 1)


def test_a_step_of_no_known_kind_is_refused_before_anything_is_done():
    with pytest.raises(ValueError, match="a step that is done in no known way: at night"):
        migration_files.parse("x.sql", "select 1;\n-- step: at night\nselect 2;")


def test_the_command_tells_what_it_does_and_after_a_ctrl_c_the_next_goes_on(
    empty_dsn: str, checkout: Path
):
    there = {**os.environ, "PYTHONPATH": str(checkout), "DATABASE_URL": empty_dsn}
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        conn.execute(
            "create table projects (project_id text primary key, user_id text not null)"
        )
    with psycopg.connect(empty_dsn, application_name="the shop") as shop:
        shop.execute("insert into projects values ('p', 'ann')")
        migrating = subprocess.Popen(
            [BATON, "migrate"], cwd=checkout, env=there, text=True, stdout=subprocess.PIPE
        )
        assert migrating.stdout
        line = migrating.stdout.readline()
        assert line.startswith(
            f"0001_ledger.sql: pid {shop.info.backend_pid} (the shop of baton"
        )
        migrating.send_signal(signal.SIGINT)
        rest, _ = migrating.communicate(timeout=20)
        assert migrating.returncode == 130
        assert "Stopped: what is applied stays, and `baton migrate` goes on from there." in rest
    done = subprocess.run(
        [BATON, "migrate"], cwd=checkout, env=there, text=True, capture_output=True, check=True
    )
    assert done.stdout.startswith("applied 0001_ledger.sql\napplied 0002_transcripts.sql\n")
    with psycopg.connect(empty_dsn) as conn:
        assert one(conn, "select user_id from projects") == "ann"
