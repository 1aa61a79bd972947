"""Clean-up works off what is due, however much it is, in its share of a period; what is left over is
said, and the next run goes on from there. What it counts on the way, reports tell."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import pytest
import redis
from psycopg import Connection

from db.core.walks import Walk
from db.operations import census, reports, upkeep
from tasks import upkeep as periodic
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from tests.conftest import Configure
from tests.ledger import one
from worker.cleanup.litter import sweep_checkpoints
from worker.live import checkpoints

DAY = timedelta(days=1)

TRANSCRIPTS: LiteralString = """
    insert into transcript_sessions (project_id, session_id, entries, bytes, last_batch,
                                     last_digest, updated_at)
    select 'p' || n %% %(projects)s, 's' || n, 1, 100, 1, '\\x00', now() - interval '8 days'
      from generate_series(1, %(sessions)s) n"""
PROJECTS: LiteralString = """
    insert into projects (project_id, user_id, last_ai_session_id, last_ai_session_updated_at)
    select 'p' || n, 'u', 's' || n, now() - n * interval '6 min'
      from generate_series(1, %(projects)s) n"""
MOVES: LiteralString = """
    insert into session_transitions (project_id, new_session_id, source)
    select project_id, last_ai_session_id, 'build' from projects"""


def ended() -> Walk:
    """A run whose time is up after its first page."""
    return Walk(until=time.monotonic() - 1)


def test_a_run_prunes_all_that_is_due(conn: Connection):
    conn.execute(TRANSCRIPTS, {"projects": 120, "sessions": 480})
    assert upkeep.prune_transcripts(conn, 7 * DAY) == 480
    assert one(conn, "select count(*) from transcript_sessions") == 0


def test_a_run_whose_time_is_up_says_so_and_the_next_goes_on(conn: Connection):
    conn.execute(TRANSCRIPTS, {"projects": 120, "sessions": 480})
    walk = ended()
    first = upkeep.prune_transcripts(conn, 7 * DAY, walk)
    assert 0 < first < 480
    assert walk.over
    last = Walk(walk.after)
    assert upkeep.prune_transcripts(conn, 7 * DAY, last) == 480 - first
    assert (last.after, last.over) == (None, False)


def cleared(conn: Connection, age: timedelta, walk: Walk) -> int:
    return upkeep.clear_jobs(conn, age, walk)["jobs"]


DUE: list[tuple[str, LiteralString, Any]] = [
    (
        "mark_stale",
        """
        insert into project_ai_session_metrics (session_id, project_id, last_used_at)
        select 's' || n, 'p', now() - interval '2 days' from generate_series(1, 1100) n""",
        upkeep.mark_stale,
    ),
    (
        "archive_transitions",
        """
        insert into session_transitions (project_id, new_session_id, source, created_at)
        select 'p', 's' || n, 'chat_plan', now() - interval '40 days' + n * interval '1 s'
          from generate_series(1, 1101) n""",
        upkeep.archive_transitions,
    ),
    (
        "clear_jobs",
        """
        insert into jobs (id, chain_id, project_id, user_id, kind, state, finished_at)
        select id, id, 'p', 'u', 'build', 'done', now() - interval '40 days'
          from (select gen_random_uuid() as id from generate_series(1, 1100)) x""",
        cleared,
    ),
]


@pytest.mark.parametrize(("due", "work"), [each[1:] for each in DUE], ids=[n for n, *_ in DUE])
def test_what_is_due_is_done_page_by_page_however_much_it_is(
    conn: Connection, due: LiteralString, work: Any
):
    conn.execute(due)
    walk = ended()
    assert work(conn, DAY, walk) == upkeep.ROWS, "a page is committed, and then its time is up"
    assert walk.over
    assert work(conn, DAY, Walk(walk.after)) == 1100 - upkeep.ROWS


def test_the_oldest_go_first(conn: Connection):
    conn.execute(DUE[2][1])
    conn.execute(
        "update jobs set finished_at = finished_at - interval '9 d'"
        " where id in (select id from jobs limit 200)"
    )
    upkeep.clear_jobs(conn, DAY, ended())
    assert (
        one(conn, "select count(*) from jobs where finished_at < now() - interval '45 d'") == 0
    )


def test_a_chain_goes_whole_in_whichever_page_its_jobs_are(conn: Connection):
    conn.execute(
        """
        with chains as (select gen_random_uuid() as id, n from generate_series(1, 700) n)
        insert into jobs (id, chain_id, project_id, user_id, kind, state, finished_at)
        select id, id, 'p', 'u', 'build', 'done', now() - interval '40 days' from chains
        union all
        select gen_random_uuid(), id, 'p', 'u', 'metadata', 'done', now() - interval '20 days'
          from chains
        """
    )
    assert upkeep.clear_jobs(conn, DAY, ended())["jobs"] == 2 * upkeep.ROWS
    halves = "select from jobs group by chain_id having count(*) = 1"
    assert conn.execute(halves).rowcount == 0


def test_the_periodic_task_writes_down_where_it_stopped_and_goes_on_there(
    conn: Connection, dsn: str, configure: Configure
):
    conn.execute(TRANSCRIPTS, {"projects": 120, "sessions": 480})
    configure(DATABASE_URL=dsn, BATON_UPKEEP_EVERY="1")
    results = list[Any]()
    while not results or results[-1].get("over"):
        periodic.prune_transcripts()
        results.append(upkeep.noted(conn, "prune_transcripts"))
        conn.execute("update ticks set period = period - 1000")  # long ago
    assert len(results) > 1, "that much takes longer than a seventh of a second"
    assert results[0]["after"] == [results[0]["after"][0]]
    assert sum(result["pruned"] for result in results) == 480
    assert results[-1]["whole"]["sessions"] == 480, "counted on the way, over those runs"
    assert results[-1].keys() == {"pruned", "whole"}


def test_the_newest_run_is_known_by_its_time_also_when_periods_have_become_longer(
    conn: Connection,
):
    conn.execute(
        "insert into ticks (name, period, at) values ('sweep', 9e9::bigint, now() - interval '1 h')"
    )
    assert upkeep.claim_tick(conn, "sweep", DAY)
    upkeep.end_tick(conn, "sweep", {"n": 1})
    assert upkeep.noted(conn, "sweep") == {"n": 1}
    assert [tick["result"] for tick in reports.ticks(conn)] == [{"n": 1}]


# What is counted on the way


def test_of_many_projects_reports_tell_what_clean_up_has_counted(
    conn: Connection, baton: Baton
):
    conn.execute(PROJECTS, {"projects": 1300})
    conn.execute(MOVES)
    conn.execute("update projects set last_ai_session_id = 'other' where project_id = 'p7'")
    assert census.of_projects(conn) is None
    assert "not counted yet" in baton("report", "health").out
    walk = Walk()
    counted = census.count_projects(conn, {}, walk)["whole"]
    assert (counted["projects"], counted["out_of_sync"]) == (1300, 1)
    assert counted["examples"] == ["p7"]
    assert sum(counted["ages"]) == 1300
    assert counted["ages"][0] == pytest.approx(10, abs=1), "ten in the last hour"


def test_a_project_out_of_step_is_an_alarm_among_however_many(
    conn: Connection, baton: Baton, dsn: str, configure: Configure
):
    conn.execute(PROJECTS, {"projects": 1300})
    conn.execute(MOVES)
    configure(DATABASE_URL=dsn)
    periodic.count_projects()
    well = baton("report", "sync", "--json")
    assert (well.code, well.document["projects"], well.document["out_of_sync"]) == (0, 1300, 0)
    assert len(well.document["rows"]) == 500, "those that moved last"
    conn.execute("update projects set last_ai_session_id = 'other' where project_id = 'p7'")
    conn.execute("delete from ticks")
    periodic.count_projects()
    ill = baton("report", "sync")
    assert ill.code == 1
    assert "1299 of 1300 projects are in step" in ill.out
    conn.execute("update projects set last_ai_session_id = 's7' where project_id = 'p7'")
    assert baton("report", "sync").code == 0, "it was looked at again"
    ages = baton("report", "health", "--json").document
    assert sum(one["heads"] for one in ages["session_ages"]) == 1300
    assert datetime.fromisoformat(ages["heads_counted_at"]) <= datetime.now(UTC)


TURNS: LiteralString = """
    insert into project_ai_session_metrics
           (session_id, project_id, step, cost_usd, duration_ms, created_at)
    select 's' || n, 'p' || n % 50, 'build', 0.5, 1000, now() - n * interval '1 min'
      from generate_series(1, 10050) n"""


def test_a_report_covers_the_newest_turns_and_says_so_or_all_if_it_is_to(
    conn: Connection, baton: Baton
):
    conn.execute(TURNS)
    conn.execute("analyze project_ai_session_metrics")  # as autovacuum does within a minute
    newest = baton("report", "cost", "--json").document
    assert newest["covers"]["turns"] == 10_000
    oldest = datetime.now(UTC) - datetime.fromisoformat(newest["covers"]["since"])
    assert oldest == pytest.approx(timedelta(minutes=10_000), abs=timedelta(minutes=2))
    assert newest["cost_usd"] == 5000
    assert "This is of the newest 10,000 turns, since" in baton("report", "cost").out
    whole = baton("report", "cost", "--all", "--json").document
    assert (whole["covers"], whole["cost_usd"]) == ({"turns": 10_050, "since": None}, 5025)
    (build,) = whole["resuming"]["samples"]
    assert (build["turns"], build["duration_ms_p50"]) == (10_050, 1000)


def test_many_jobs_that_wait_are_estimated_and_few_are_counted(conn: Connection, baton: Baton):
    conn.execute(
        """
        insert into jobs (id, chain_id, project_id, user_id, kind)
        select id, id, 'p', 'u', 'build'
          from (select gen_random_uuid() as id from generate_series(1, 10050)) x
        """
    )
    conn.execute("update jobs set state = 'parked', credential = 'c' where pos <= 3")
    conn.execute("vacuum analyze jobs")
    found = baton("report", "health", "--json").document
    assert found["jobs_estimated"] == ["queued"]
    assert found["jobs"]["queued"] == pytest.approx(10_047, rel=0.02)
    assert (found["jobs"]["parked"], found["jobs"]["running"]) == (3, 0)
    assert "queued: ~10,0" in baton("report", "health").out
    conn.execute("delete from jobs where pos > 100")
    found = baton("report", "health", "--json").document
    assert (found["jobs"]["queued"], found["jobs_estimated"]) == (97, [])


def test_every_key_without_an_end_gets_one_however_many_there_are(
    redis_url: str, configure: Configure
):
    configure(REDIS_URL=redis_url)
    checkpoints.client.cache_clear()
    with redis.Redis.from_url(f"{redis_url.rpartition('/')[0]}/1") as client:
        client.mset({f"claude:session:{n}": "x" for n in range(1200)})
    assert sweep_checkpoints(time.monotonic() - 1) == 0, "its time was up"
    assert sweep_checkpoints() == 1200
    assert sweep_checkpoints() == 0


def test_a_run_sweeps_all_connections_that_have_gone(
    conn: Connection, dsn: str, redis_url: str, configure: Configure
):
    configure(DATABASE_URL=dsn, REDIS_URL=redis_url)
    conn.execute(
        """
        insert into live_connections (conn, project_id, user_id, gateway, status, last_active_at)
        select gen_random_uuid(), 'p', 'u', 'g', 'disconnected', now() - interval '2 days'
          from generate_series(1, 12000)
        """
    )
    periodic.sweep()
    assert one(conn, "select count(*) from live_connections") == 0
    assert one(conn, "select (result ->> 'live_connections')::int from ticks") == 12_000
