"""The ledger's clean-up: old things go, nothing that is needed, and no audit is lost."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from db.operations import upkeep
from db.projects import projects
from db.sessions import registry
from db.transcripts import appends, listings
from tests.invariants import violations
from tests.ledger import (
    advance,
    ask,
    at_once,
    begun,
    blocked,
    built,
    commit,
    finish,
    one,
    turn,
)
from tests.waiting import wait_until

DAY = timedelta(days=1)
ENTRY: Any = {"type": "user", "uuid": "11111111-1111-1111-1111-111111111111"}


def test_a_session_that_was_not_used_for_a_day_is_stale_and_stays_resumable(conn: Connection):
    old, new = built(conn).head, built(conn).head
    conn.execute(
        "update project_ai_session_metrics set last_used_at = now() - interval '25 h'"
        " where session_id = %s",
        (old,),
    )
    assert upkeep.mark_stale(conn, DAY) == 1
    assert upkeep.mark_stale(conn, DAY) == 0
    rows = conn.execute(
        "select session_id, stale_at is not null, status, is_resumable"
        " from project_ai_session_metrics order by created_at"
    ).fetchall()
    assert rows == [(old, True, "expired", True), (new, False, "active", True)]


def test_a_session_that_fails_too_often_is_not_resumable_any_more(conn: Connection):
    head = built(conn).head
    assert head
    assert registry.count_failure(conn, head, limit=2) == 1
    assert one(conn, "select is_resumable from project_ai_session_metrics")
    assert registry.count_failure(conn, head, limit=2) == 2
    assert not one(conn, "select is_resumable from project_ai_session_metrics")
    assert registry.count_failure(conn, "unknown", limit=2) == 0


def test_archiving_keeps_the_newest_of_each_project_and_version_and_loses_no_row(
    conn: Connection,
):
    for version in ("v1", "v1", "v2"):
        built(conn, version=version)
    commit(conn, begun(conn, "chat_plan"), source="chat_plan")
    commit(conn, begun(conn, "chat_plan"), source="chat_plan")
    built(conn, project="q")
    conn.execute("update session_transitions set created_at = now() - interval '31 days'")
    built(conn, project="r")
    audit = projects.session_chain(conn, "p")
    assert upkeep.archive_transitions(conn, 30 * DAY) == 2
    assert upkeep.archive_transitions(conn, 30 * DAY) == 0
    rows = conn.execute("select id from session_transitions where project_id = 'p' order by id")
    assert [n for (n,) in rows] == [2, 3, 5]  # v1's, v2's and the project's newest
    assert projects.session_chain(conn, "p") == audit
    assert one(conn, "select count(*) from session_transitions_archive") == 2
    assert one(conn, "select bool_and(sync_status = 'SYNCED') from session_sync")
    assert violations(conn) == []
    built(conn)
    assert violations(conn) == []


def store(conn: Connection, session: str, *, project: str = "p", days: int = 8) -> None:
    """A transcript of one entry, last written so long ago."""
    with conn.transaction():
        appends.append(conn, project, session, [dict(ENTRY, said=session)])
    conn.execute(
        "update transcript_sessions set updated_at = now() - make_interval(days => %s)"
        " where session_id = %s",
        (days, session),
    )


def stored(conn: Connection) -> set[str]:
    return {name for (name,) in conn.execute("select session_id from transcript_sessions")}


def test_pruning_keeps_heads_versions_and_what_was_written_of_late(conn: Connection):
    gone, version = built(conn).head, built(conn, version="v2").head
    version1 = one(conn, "select ai_session_id from project_versions where version_id = 'v1'")
    head = commit(conn, begun(conn, "chat_plan")).head
    assert gone == version1
    conn.execute("delete from project_versions where version_id = 'v1'")
    for session in (gone, version, head):
        assert session
        store(conn, session)
    store(conn, "running", days=0)
    assert upkeep.prune_transcripts(conn, 7 * DAY) == 1
    assert upkeep.prune_transcripts(conn, 7 * DAY) == 0
    assert stored(conn) == {version, head, "running"}
    assert one(conn, "select count(*) from transcript_entries") == 3
    rows = conn.execute(
        "select session_id from project_ai_session_metrics where not is_resumable"
    ).fetchall()
    assert rows == [(gone,)]
    assert violations(conn) == []


def test_a_head_that_moves_back_while_its_transcript_is_pruned_keeps_it(
    conn: Connection, dsn: str
):
    """An operator rewinds just then: the prune waits, looks again, and leaves it."""
    first = built(conn).head
    built(conn)
    conn.execute("update project_versions set ai_session_id = null")
    assert first
    store(conn, first)
    assert listings.unreachable(conn, ["p"], idle=DAY) == [("p", first)]
    with psycopg.connect(dsn) as operator, ThreadPoolExecutor() as threads:
        operator.execute("select 1")  # in a transaction from here on
        projects.rewind(operator, "p", first)
        pruned = threads.submit(upkeep.prune_transcripts, conn, DAY)
        with psycopg.connect(dsn, autocommit=True) as looker:
            wait_until(lambda: blocked(looker), description="the prune waits")
        operator.commit()
        assert pruned.result(10) == 0
    assert stored(conn) == {first}


def test_old_chains_go_whole_with_their_turns_and_nothing_of_the_audit(conn: Connection):
    built(conn)
    half = begun(conn)
    assert advance(conn, half, turn(conn, half))
    open_one = begun(conn)
    conn.execute(
        "update jobs set finished_at = now() - interval '31 days' where finished_at is not null"
    )
    conn.execute("update jobs set chain_id = %s where id = %s", (open_one.id, half.id))
    audit = projects.session_chain(conn, "p")
    tries = one(conn, "select count(*) from session_resume_attempts")
    events = one(conn, "select count(*) from events")
    assert upkeep.clear_jobs(conn, 30 * DAY)["jobs"] == 1
    assert one(conn, "select count(*) from jobs") == 2  # of a chain that goes on
    assert one(conn, "select count(*) from turns") == 1
    assert projects.session_chain(conn, "p") == audit
    assert one(conn, "select count(*) from session_resume_attempts") == tries
    assert one(conn, "select count(*) from events") == events
    finish(conn, open_one, "failed")
    assert upkeep.clear_jobs(conn, 30 * DAY)["jobs"] == 0
    assert violations(conn) == []


def test_an_end_that_is_not_told_yet_is_not_cleared(conn: Connection):
    ask(conn)
    ask(conn, busy="replace")
    conn.execute("update jobs set finished_at = now() - interval '31 days' where untold")
    assert upkeep.clear_jobs(conn, 30 * DAY)["jobs"] == 0


def test_ticks_and_silent_workers_go_with_the_jobs(conn: Connection):
    conn.execute(
        "insert into ticks (name, period, at) values ('x', 1, now() - interval '31 d')"
    )
    conn.execute(
        "insert into workers (id, host, pid, slots, seen_at)"
        " values ('w', 'h', 1, 1, now() - interval '2 d'), ('v', 'h', 1, 1, now())"
    )
    assert upkeep.clear_jobs(conn, 30 * DAY) == {
        "jobs": 0,
        "turns": 0,
        "ticks": 1,
        "workers": 1,
        "messages": 0,
    }


def test_two_beats_do_a_periods_work_once(conn: Connection, dsn: str):
    long = timedelta(days=3650)  # the period does not end during the test
    found = at_once(dsn, lambda own: upkeep.claim_tick(own, "sweep", long))
    assert sorted(map(str, found)) == ["False"] * 7 + ["True"]
    assert upkeep.claim_tick(conn, "other", long)
    upkeep.end_tick(conn, "sweep", {"n": 1})
    assert conn.execute("select name, result from ticks order by name").fetchall() == [
        ("other", None),
        ("sweep", {"n": 1}),
    ]


def test_a_tick_that_was_missed_is_made_up_for_once(conn: Connection):
    every = timedelta(days=3650)
    conn.execute("insert into ticks (name, period, ended_at) values ('sweep', 0, now())")
    assert upkeep.claim_tick(conn, "sweep", every)
    assert not upkeep.claim_tick(conn, "sweep", every)


@pytest.mark.parametrize("moved", [False, True])
def test_a_session_is_found_old_by_postgres_own_clock(conn: Connection, moved: bool):
    job = built(conn)
    if moved:
        conn.execute(
            "update project_ai_session_metrics set last_used_at = now() - interval '2 d'"
        )
    (found,) = registry.candidates(conn, begun(conn), user_id="u", handed=job.head)
    assert (found.age > DAY) == moved
