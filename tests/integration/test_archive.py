"""The archive of transitions: a partition a month, made as needed, and no move is lost."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection

from db.core import migrate
from db.core.migrate import FILES
from db.operations import upkeep
from db.projects import projects
from tests.invariants import violations
from tests.ledger import at_once, begun, blocked, built, commit, one
from tests.waiting import wait_until

DAY = timedelta(days=1)
MONTHS: LiteralString = """
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'session_transitions_archive'::regclass order by 1"""


def months(conn: Connection) -> list[str]:
    return [
        name.removeprefix("session_transitions_archive_") for (name,) in conn.execute(MONTHS)
    ]


def moved_in(conn: Connection, *when: str, project: str = "p") -> list[str]:
    """A head that moved at these times, the newest move now."""
    made = list[str]()
    for at in when:
        job = commit(conn, begun(conn, "chat_plan", project), source="chat_plan")
        assert job.head
        made.append(job.head)
        conn.execute(
            "update session_transitions set created_at = %s where new_session_id = %s",
            (at, job.head),
        )
    commit(conn, begun(conn, "chat_plan", project), source="chat_plan")
    return made


def test_a_move_goes_to_the_month_it_was_made_in_by_utc(conn: Connection):
    moved_in(
        conn, "2025-12-31 23:59:59.999999Z", "2026-01-01 00:00Z", "2026-01-31 23:30:00-01:00"
    )
    audit = projects.session_chain(conn, "p")
    conn.execute("set timezone = 'Asia/Tokyo'")
    assert upkeep.archive_transitions(conn, 30 * DAY) == 3
    assert months(conn) == ["2025_12", "2026_01", "2026_02"]
    for month in (b"2025_12", b"2026_01", b"2026_02"):
        count = conn.execute(b"select count(*) from session_transitions_archive_" + month)
        assert count.fetchone() == (1,)
    conn.execute("set timezone = 'UTC'")
    assert projects.session_chain(conn, "p") == audit, "in order, none lost"
    assert violations(conn) == []


def test_two_beats_that_make_a_month_at_once_lose_nothing(conn: Connection, dsn: str):
    for n in range(8):
        moved_in(conn, "2026-01-05Z", "2026-02-05Z", project=f"p{n}")
    moved = at_once(dsn, lambda own: upkeep.archive_transitions(own, 30 * DAY))
    assert all(isinstance(n, int) for n in moved), moved
    assert sum(n for n in moved if isinstance(n, int)) == 16
    assert months(conn) == ["2026_01", "2026_02"]
    assert violations(conn) == []


def test_a_month_is_made_beside_readers_and_commits(conn: Connection, dsn: str):
    """Somebody who reads the chain in a long transaction neither waits nor is waited for."""
    moved_in(conn, "2026-01-05Z")
    with psycopg.connect(dsn) as reader, psycopg.connect(dsn) as beat:
        assert one(reader, "select count(*) from session_chain") == 2
        beat.execute("set lock_timeout = '2s'")
        assert upkeep.archive_transitions(beat, 30 * DAY) == 1
        conn.execute("set lock_timeout = '2s'")
        built(conn, project="q")
        beat.commit()
    assert one(conn, "select count(*) from session_chain") == 3


def test_the_second_of_two_beats_waits_for_the_month_and_goes_on(conn: Connection, dsn: str):
    moved_in(conn, "2026-01-05Z")
    with psycopg.connect(dsn) as first, ThreadPoolExecutor() as threads:
        first.execute("select 1")  # in a transaction from here on
        assert upkeep.archive_transitions(first, 30 * DAY) == 1
        second = threads.submit(upkeep.archive_transitions, conn, 30 * DAY)
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the second beat waits")
        first.commit()
        assert second.result(10) == 0


def test_a_session_whose_move_is_archived_can_be_rewound_to(conn: Connection):
    (first,) = moved_in(conn, "2026-01-05Z")
    upkeep.archive_transitions(conn, 30 * DAY)
    assert one(conn, "select count(*) from session_transitions") == 1
    projects.rewind(conn, "p", first)
    assert one(conn, "select last_ai_session_id from projects") == first
    assert one(conn, "select distinct sync_status from session_sync") == "SYNCED"
    assert violations(conn) == []


def test_a_month_that_an_operator_detached_stands_in_nobodys_way(conn: Connection):
    moved_in(conn, "2026-01-05Z")
    upkeep.archive_transitions(conn, 30 * DAY)
    conn.execute(
        "alter table session_transitions_archive"
        " detach partition session_transitions_archive_2026_01 concurrently"
    )
    assert one(conn, "select count(*) from session_chain") == 1
    assert one(conn, "select count(*) from session_transitions_archive_2026_01") == 1
    moved_in(conn, "2026-01-06Z", project="q")  # a move of that month that comes late
    assert upkeep.archive_transitions(conn, 30 * DAY) == 1
    assert months(conn) == ["2026_01_2"]
    conn.execute(
        "insert into session_transitions_archive select * from session_transitions_archive_2026_01"
    )
    assert violations(conn) == []


def test_a_worker_that_does_not_own_the_tables_archives_too(conn: Connection, dsn: str):
    moved_in(conn, "2026-01-05Z")
    conn.execute("create role plain_worker login password 'none'")
    try:
        conn.execute("grant all on all tables in schema public to plain_worker")
        as_worker = f"postgresql://plain_worker:none@{dsn.rpartition('@')[2]}"
        with psycopg.connect(as_worker, autocommit=True) as worker:
            assert upkeep.archive_transitions(worker, 30 * DAY) == 1
            assert one(worker, "select count(*) from session_chain") == 2
    finally:
        conn.execute("drop owned by plain_worker")
        conn.execute("drop role plain_worker")


@pytest.fixture
def before(empty_dsn: str, tmp_path: Path) -> Any:
    """A database as it was before the archive had months."""
    files = tmp_path / "older"
    files.mkdir()
    for file in sorted(FILES.glob("*.sql"))[:5]:
        shutil.copy(file, files)
    assert migrate.migrate(empty_dsn, files=files)[-1] == "0005_reports.sql"
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        yield conn


ARCHIVED: LiteralString = """
    insert into session_transitions_archive
           (id, project_id, old_session_id, new_session_id, source, reason, created_at, archived_at)
    values (1, 'p', null, 'a', 'operator', 'adopted', '2025-11-30 23:00Z', '2026-01-01Z'),
           (2, 'p', 'a', 'b', 'operator', 'rewind', '2025-12-01 01:00Z', '2026-01-02Z')"""


def test_what_was_archived_before_is_kept_as_it_was(before: Connection, empty_dsn: str):
    before.execute(ARCHIVED)
    before.execute(
        "insert into projects (project_id, user_id, last_ai_session_id) values ('p', 'u', 'c')"
    )
    before.execute(
        "insert into session_transitions (id, project_id, old_session_id, new_session_id, source)"
        " overriding system value values (3, 'p', 'b', 'c', 'operator')"
    )
    audit = before.execute("select * from session_chain order by id").fetchall()
    rows = before.execute("select * from session_transitions_archive order by id").fetchall()
    migrate.migrate(empty_dsn)
    assert before.execute("select * from session_chain order by id").fetchall() == audit
    after = before.execute("select * from session_transitions_archive order by id").fetchall()
    assert [row[: len(rows[0])] for row in after] == rows  # columns came since
    assert months(before) == ["2025_11", "2025_12"]
    assert violations(before) == []


def test_a_products_table_of_a_new_name_is_refused_and_nothing_is_done(
    before: Connection, empty_dsn: str
):
    before.execute("create table deletions (id int)")
    before.execute(ARCHIVED)
    with pytest.raises(
        psycopg.errors.RaiseException, match="There is a table deletions already"
    ):
        migrate.migrate(empty_dsn)
    assert one(before, "select count(*) from session_transitions_archive") == 2
