"""Looking after jobs, projects and sessions at the command line."""

from datetime import timedelta
from uuid import uuid4

from psycopg import Connection

from db.jobs import limits
from db.transcripts import appends
from db.transcripts.form import Entry
from tests import ledger
from tests.commandline import Baton, failed
from tests.commandline import bare as bare
from tests.commandline import baton as baton
from worker.process import identity


def test_a_job_is_shown_with_its_processes_steps_and_sessions(baton: Baton, conn: Connection):
    head = ledger.built(conn).head
    job = ledger.begun(conn)
    minted = ledger.turn(conn, job)
    conn.execute("update jobs set agent_pid = 815 where id = %s", (job.id,))
    shown = baton("jobs", str(job.id), "--json").document
    expected = {
        "state": "running", "attempts": 1, "host": "host", "worker_pid": 4711,
        "agent_pid": 815, "error_class": None, "error": None,
    }  # fmt: skip
    assert {name: shown[name] for name in expected} == expected
    assert 0 < shown["lease_left_s"] <= 30
    (step,) = shown["steps"]
    assert (step["step"], step["minted_session_id"]) == ("build", minted)
    assert (step["parent_session_id"], step["outcome"]) == (head, "running")
    (looked,) = shown["sessions_looked_at"]
    assert (looked["session_id"], looked["outcome"]) == (head, "trying")
    lines = baton("jobs", str(job.id)).out
    for told in ("state: running", "worker pid: 4711", "agent pid: 815", minted):
        assert told in lines


def test_cancelling_ends_what_follows_too(baton: Baton, conn: Connection):
    waiting = ledger.ask(conn, project="q")
    assert baton("cancel", str(waiting)).out.endswith(f"{waiting} is cancelled.\n")
    assert baton("cancel", str(waiting)).code == 0, "it is as was asked"
    running = ledger.begun(conn)
    told = baton("cancel", str(running.id), "--json").document
    assert [job["state"] for job in told["jobs"]] == ["running"]
    assert ledger.job_row(conn, running.id, "cancel_requested_at") is not None
    ended = ledger.built(conn, project="r")
    refused = baton("cancel", str(ended.id))
    assert (refused.code, "has ended already (done)" in refused.err) == (1, True)


def test_a_finished_job_is_tried_again_as_a_new_one(baton: Baton, conn: Connection):
    job = failed(conn, "It broke.")
    new = baton("retry", str(job), "--fresh", "--json").document
    assert (new["retry_of"], new["state"]) == (str(job), "queued")
    assert ledger.job_row(conn, new["id"], "args")["fresh"] is True
    refused = baton("retry", new["id"])
    assert (refused.code, "wait for its end" in refused.err) == (1, True)


def test_the_chain_shows_each_move_of_the_head(baton: Baton, conn: Connection):
    first = ledger.built(conn)
    second = ledger.commit(
        conn, ledger.begun(conn), input_tokens=1000, cache_read_tokens=2000,
        output_tokens=30, raw_cost_usd=0.5, duration_ms=1500,
    )  # fmt: skip
    moves = baton("chain", "p", "--json").document["moves"]
    assert [move["new_session_id"] for move in moves] == [first.head, second.head]
    assert [move["old_session_id"] for move in moves] == [None, first.head]
    line = baton("chain", "p").out.splitlines()[2]
    for told in ("update", f"{str(first.head)[:8]} → {second.head}", "forked"):
        assert told in line
    for told in ("1,000+2,000→30", "$0.5000", "1.5 s"):
        assert told in line


def said(session: str) -> Entry:
    message = {"role": "user", "content": "hello"}
    more = {"parentUuid": None, "sessionId": session, "message": message}
    return {"type": "user", "uuid": str(uuid4()), **more}


def test_an_operator_moves_the_head_back_and_asks_for_a_fresh_session(
    baton: Baton, conn: Connection
):
    first, second = ledger.built(conn), ledger.built(conn, version="v2")
    with conn.transaction():
        appends.append(conn, "p", str(first.head), [said(str(first.head))])
    assert baton("project", "p", "--rewind", str(first.head)).code == 0
    shown = baton("project", "p", "--json").document
    assert shown["project"]["last_ai_session_id"] == first.head
    assert shown["sync_status"] == "SYNCED"
    assert baton("project", "p", "--fresh").code == 0
    assert "next turn: begins fresh" in baton("project", "p").out
    ledger.begun(conn)
    refused = baton("project", "p", "--rewind", str(second.head))
    assert (refused.code, "is running" in refused.err) == (1, True)


def test_unlocking_takes_only_from_the_dead(baton: Baton, conn: Connection):
    assert "Nothing was stuck" in _asked(conn, baton, "project", "q", "--unlock")
    alive = ledger.begun(conn)
    refused = baton("project", "p", "--unlock")
    assert (refused.code, f"Job {alive.id} is running on host" in refused.err) == (1, True)
    conn.execute("update jobs set lease_until = now() - interval '1 s' where state = 'running'")
    done = baton("project", "p", "--unlock", "--json").document["done"]
    assert done == [f"Job {alive.id} was taken from its dead worker and is queued now."]
    assert ledger.job_row(conn, alive.id) == "queued"


def test_unlocking_takes_at_once_from_a_process_that_is_gone_here(
    baton: Baton, conn: Connection
):
    job = ledger.begun(conn)
    conn.execute("update jobs set boot = %s, pid = 1, pid_started = 1", (identity.boot(),))
    assert baton("project", "p", "--unlock").code == 0
    assert ledger.job_row(conn, job.id) == "queued"


def test_unlocking_lets_parked_jobs_go_on(baton: Baton, conn: Connection):
    job = ledger.ask(conn)
    limits.impose(conn, "abc", wait=None, reason="authentication_failed")
    (limit,) = limits.in_force(conn)
    limits.park_waiting(conn, job, limit.credential, silent_after=timedelta(0))
    done = baton("project", "p", "--unlock", "--json").document["done"]
    assert done == ["Credential abc may be used again: 1 parked jobs go on."]
    assert ledger.job_row(conn, job) == "queued"
    assert limits.in_force(conn) == []


def _asked(conn: Connection, baton: Baton, command: str, project: str, *more: str) -> str:
    ledger.ask(conn, project=project)
    return baton(command, project, *more).out


def test_a_session_is_shown_with_what_is_in_the_store(baton: Baton, conn: Connection):
    head = ledger.built(conn).head
    assert head
    ledger.turn(conn, ledger.begun(conn))
    missing = baton("session", head, "--json").document
    assert (missing["in_store"], missing["sound"], missing["problem"]) == (
        False,
        False,
        "not_found",
    )
    entry = {"type": "user", "uuid": str(uuid4()), "message": {"role": "user", "content": "x"}}
    appends.append(conn, "p", head, [entry])
    shown = baton("session", head, "--json").document
    assert (shown["in_store"], shown["sound"], shown["entries"]) == (True, True, 1)
    assert shown["registry"]["is_head"]
    assert "digest_files" not in shown["registry"], "that is for agents"
    assert [one["outcome"] for one in shown["resume_attempts"]] == ["trying"]


def test_an_operator_bars_a_session(baton: Baton, conn: Connection):
    head = ledger.built(conn).head
    assert head
    assert baton("session", head, "--not-resumable").out == "It is not resumed again.\n"
    assert "resumable: no" in baton("session", head).out
    assert baton("session", head, "--not-resumable").out == "It was not resumable before.\n"


def test_a_job_that_asks_is_answered(baton: Baton, conn: Connection):
    asked = ledger.ask(conn, project="asks")
    refused = baton("answer", str(asked), "start-new")
    assert refused.code == 1
    assert "asks nothing" in refused.err
    conn.execute(
        "update jobs set state = 'parked', error_class = 'ask' where id = %s", (asked,)
    )
    assert baton("answer", str(asked), "nonsense").code == 2
    assert baton("answer", str(asked), "start-new").code == 0
    row = conn.execute(
        "select state, args ->> 'answer' from jobs where id = %s", (asked,)
    ).fetchone()
    assert row == ("queued", "start_new")
