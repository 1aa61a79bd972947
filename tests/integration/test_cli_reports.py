"""`baton report`: heads in step, resuming, cost, health."""

from datetime import timedelta
from uuid import uuid4

import pytest
from psycopg import Connection

from db.jobs import limits, workers
from db.jobs.workers import Worker
from db.operations import upkeep
from db.transcripts import appends
from tests import ledger
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton


def test_a_project_out_of_step_is_an_alarm(baton: Baton, conn: Connection):
    ledger.built(conn)
    ledger.ask(conn, project="without-versions")
    well = baton("report", "sync", "--json")
    assert (well.code, well.document["projects"], well.document["rate"]) == (0, 2, 1.0)
    conn.execute("update projects set last_ai_session_id = 'other' where project_id = 'p'")
    ill = baton("report", "sync")
    assert ill.code == 1
    assert "1 of 2 projects are in step (50.0 %)" in ill.out
    assert ill.out.splitlines()[1].split()[:2] == ["p", "OUT_OF_SYNC"]


def test_the_resume_rate_leaves_out_what_was_not_to_resume(baton: Baton, conn: Connection):
    ledger.built(conn)
    ledger.commit(conn, ledger.begun(conn))
    ledger.commit(conn, ledger.begun(conn))
    fresh = {"parent": None, "relation": "fresh"}
    ledger.commit(conn, ledger.begun(conn), **fresh, source="reset", reason="control")
    ledger.commit(conn, ledger.begun(conn), **fresh, source="fallback", reason="not_found")
    found = baton("report", "resume", "--json").document
    assert found["began"] == {"first": 1, "resumed": 2, "policy": 1, "fallback": 1}
    assert (found["with_a_head"], found["rate"]) == (4, pytest.approx(2 / 3))
    assert found["fallback_share"] == 0.25
    assert {(r["what"], r["reason"]) for r in found["reasons"]} == {
        ("began fallback", "not_found"), ("began policy", "control"),
    }  # fmt: skip
    assert [day["rate"] for day in found["by_day"]] == [pytest.approx(2 / 3)]
    assert "below the goal of 95.0 %" in baton("report", "resume").out


def test_costs_are_compared_with_the_control_sample(baton: Baton, conn: Connection):
    ledger.built(conn, raw_cost_usd=9.0, duration_ms=9000)
    ledger.commit(
        conn,
        ledger.begun(conn),
        raw_cost_usd=10.0,
        duration_ms=1000,
        cache_read_tokens=90,
        input_tokens=10,
    )
    ledger.commit(
        conn, ledger.begun(conn), parent=None, relation="fresh", source="reset",
        reason="control", raw_cost_usd=4.0, duration_ms=2000,
    )  # fmt: skip
    found = baton("report", "cost", "--json").document
    assert found["cost_usd"] == pytest.approx(14.0), "each turn's own: 9, 10 - 9, 4"
    compared = found["resuming"]
    assert compared["baseline"] == "control"
    assert compared["cost_reduction"] == pytest.approx(0.75)
    assert compared["duration_reduction"] == pytest.approx(0.5)
    (update,) = [row for row in found["rows"] if row["source"] == "update"]
    assert update["cached_share"] == pytest.approx(0.9)
    told = baton("report", "cost").out
    assert "costs 75.0 % less and takes 50.0 % less time than one of the control sample" in told


def test_estimates_are_marked(baton: Baton, conn: Connection):
    ledger.built(conn, raw_cost_usd=2.0)
    assert "~" not in baton("report", "cost").out.replace("~ marks", "")
    conn.execute("update project_ai_session_metrics set cost_estimated = true")
    assert "~$2.0000" in baton("report", "cost").out
    assert "~$2.0000" in baton("chain", "p").out


def test_health_tells_what_waits_runs_and_stands_in_the_way(baton: Baton, conn: Connection):
    ledger.built(conn)
    running, waiting = ledger.begun(conn), ledger.ask(conn)
    killer = ledger.ask(conn, project="r")
    conn.execute(
        "update jobs set state = 'quarantined', finished_at = now(), rescues = 3 where id = %s",
        (killer,),
    )
    limits.impose(conn, "abc", wait=None, reason="billing_error")
    workers.report(conn, Worker("w1", "here", 1, 2, "bubblewrap", "2.1.327", "abc"))
    upkeep.claim_tick(conn, "sweep", timedelta(minutes=5))
    ledger.webhook(conn, waiting, error="answered 500")
    found = baton("report", "health", "--json").document
    assert found["jobs"] == {"queued": 1, "running": 1, "parked": 0, "quarantined": 1}
    assert found["oldest_waiting"]["id"] == str(waiting)
    assert [job["id"] for job in found["running"]] == [str(running.id)]
    assert [job["id"] for job in found["quarantined"]] == [str(killer)]
    assert [one["reason"] for one in found["limits"]] == ["billing_error"]
    assert [one["id"] for one in found["workers"]] == ["w1"]
    assert [one["name"] for one in found["ticks"]] == ["sweep"]
    assert [one["heads"] for one in found["session_ages"]] == [1, 0, 0, 0]
    assert found["webhooks"]["failing"] == 1
    page = baton("report", "health").out
    assert "it is cleared" in page
    assert "1 failed, tried again" in page


def test_health_tells_what_the_biggest_projects_store(baton: Baton, conn: Connection):
    for project, times in (("small", 1), ("big", 40)):
        entries = [
            {"type": "user", "uuid": str(uuid4()), "said": str(uuid4())} for _ in range(times)
        ]
        appends.append(conn, project, "s", entries)
        appends.append(conn, project, "fork", [*entries])
    found = baton("report", "health", "--json", BATON_PROJECT_BYTES="1000").document
    big, small = found["biggest"]
    assert (big["project_id"], small["project_id"], big["sessions"]) == ("big", "small", 2)
    assert big["stored"] < big["bytes"] / 2 + 1000, "what a fork repeats is stored once"
    assert big["stored"] == ledger.one(
        conn, "select sum(octet_length(body)) from transcript_entries where project_id = 'big'"
    )
    assert found["project_bytes"] == 1000
    assert "Biggest transcripts (limit: " in baton("report", "health").out
    assert "Biggest transcripts:" in baton("report", "health", BATON_PROJECT_BYTES="0").out
