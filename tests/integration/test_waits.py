"""Why a job waits: proven from the ledger, and told wherever the job is shown."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import Connection

from db.jobs import endings, limits, relays, waiting, workers
from db.jobs.endings import Wait
from db.jobs.lanes import FIRST
from db.jobs.workers import Worker
from db.operations import receipts
from tests import ledger
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.commandline import baton as baton

SOON = timedelta(hours=1)


def online(conn: Connection, slots: int = 2, name: str = "w1") -> None:
    workers.report(
        conn, Worker(name, "here", 1, slots, None, "2.1", "abc", ledger.RUNNER.worker_id)
    )


def waits(baton: Baton, job: UUID) -> dict[str, Any]:
    """What `baton jobs ID` says of it; the list says the same."""
    found = baton("jobs", str(job), "--json").document["waits"]
    (listed,) = [one for one in baton("jobs", "--json").document if one["id"] == str(job)]
    assert listed["waits"]["code"] == found["code"]
    beginning = found["sentence"][:20]  # further on it may say for how many seconds
    assert f"waits: {beginning}" in baton("jobs", str(job)).out
    return found


def test_without_a_worker_a_job_waits_for_one(baton: Baton, conn: Connection):
    told = waits(baton, ledger.ask(conn))
    assert (told["code"], told["until"], told["behind"]) == ("no_worker", None, None)
    assert "start one with `baton up`" in told["sentence"]


def test_a_job_behind_another_request_says_which(baton: Baton, conn: Connection):
    online(conn)
    running, second = ledger.begun(conn), ledger.ask(conn)
    told = waits(baton, second)
    assert told["code"] == "lane"
    assert told["behind"]["id"] == str(running.id)
    assert told["behind"]["state"] == "running"
    assert f"Behind the build {str(running.id)[:8]} of an earlier request" in told["sentence"]
    third = waits(baton, ledger.ask(conn))
    assert third["behind"]["id"] == str(running.id), "what runs goes before what waits"


def test_what_goes_before_says_why_it_waits_itself(baton: Baton, conn: Connection):
    first = ledger.begun(conn)
    wait = Wait(delay=SOON, error_class="overloaded", error="The API is overloaded.")
    endings.put_back(conn, first, wait, [])
    told = waits(baton, ledger.ask(conn))
    assert (told["code"], told["behind"]["waits"]) == ("lane", "backoff")
    assert "That one waits: It did not succeed (overloaded)" in told["sentence"]


def test_a_job_for_later_says_when(baton: Baton, conn: Connection):
    later = datetime.now(UTC) + timedelta(days=2)
    told = waits(baton, ledger.ask(conn, run_at=later))
    assert (told["code"], told["until"]) == ("schedule", later.isoformat())
    assert f"not to begin before {later:%Y-%m-%d %H:%M:%SZ}, in 1 d 23 h" in told["sentence"]


def test_a_job_that_is_tried_again_says_why_and_when(baton: Baton, conn: Connection):
    job = ledger.begun(conn)
    wait = Wait(delay=SOON, error_class="overloaded", error="The API is overloaded.")
    endings.put_back(conn, job, wait, [])
    told = waits(baton, job.id)
    assert told["code"] == "backoff"
    for part in ("(overloaded)", "in 59 m", "The API is overloaded."):
        assert part in told["sentence"]


@pytest.mark.parametrize(
    ("reason", "until", "said"),
    [
        ("authentication_failed", None, "correct ANTHROPIC_API_KEY, then run `baton doctor`"),
        ("billing_error", None, "top it up, then run `baton doctor`"),
        ("rate_limit", SOON, "asked to wait"),
    ],
)
def test_a_job_that_was_parked_before_it_ran_says_for_what(
    baton: Baton, conn: Connection, reason: str, until: timedelta | None, said: str
):
    job = ledger.ask(conn)
    limits.impose(conn, "abc", wait=until, reason=reason)
    limits.park_waiting(conn, job, "abc", silent_after=SOON)
    told = waits(baton, job)
    assert (told["code"], told["until"] is None) == ("credential", until is None)
    assert said in told["sentence"]
    assert "9999" not in baton("jobs", str(job)).out
    assert said in baton("project", "p").out


def test_a_limit_that_was_extended_tells_its_new_end(baton: Baton, conn: Connection):
    job = ledger.ask(conn)
    limits.impose(conn, "abc", wait=SOON, reason="rate_limit")
    limits.park_waiting(conn, job, "abc", silent_after=SOON)
    limits.impose(conn, "abc", wait=2 * SOON, reason="rate_limit")
    until = datetime.fromisoformat(waits(baton, job)["until"])
    assert until > datetime.now(UTC) + 1.9 * SOON


def test_a_due_job_waits_where_the_workers_may_not_use_their_credential(
    baton: Baton, conn: Connection
):
    online(conn)
    limits.impose(conn, "abc", wait=SOON, reason="rate_limit")
    assert waits(baton, ledger.ask(conn))["code"] == "credential"


def test_a_job_parked_for_nothing_any_more_is_told_so(baton: Baton, conn: Connection):
    job = ledger.ask(conn)
    conn.execute("update jobs set state = 'parked', run_at = '9999-01-01Z'")
    told = waits(baton, job)
    assert "`baton project p --unlock`" in told["sentence"]


def test_a_job_that_asks_says_how_to_answer(baton: Baton, conn: Connection):
    job = ledger.ask(conn)
    conn.execute(
        "update jobs set state = 'parked', error_class = 'ask', run_at = '9999-01-01Z'"
    )
    conn.execute(
        """
        insert into events (project_id, seq, job_id, type, body)
        values ('p', 99, %s, 'session.resume_failed', '{"code": "not_found"}')
        """,
        (job,),
    )
    told = waits(baton, job)
    assert told["code"] == "answer"
    assert (
        f"(not_found), and it asks what to do: `baton answer {str(job)[:8]} retry`"
        in (told["sentence"])
    )


def test_a_due_job_tells_busy_from_told_from_forgotten(baton: Baton, conn: Connection):
    online(conn, slots=1)
    job = ledger.ask(conn)
    assert waits(baton, job)["code"] == "no_relay"
    relays.report(conn, relay_id="r1", host="here", boot="b", pid=1)
    assert waits(baton, job)["code"] == "publishing"
    conn.execute("update relays set seen_at = now() - interval '1 min'")
    assert "has been heard of for 1 m" in waits(baton, job)["sentence"]
    conn.execute(
        "update jobs set published_at = now(), publish_after = now() + interval '1 min'"
    )
    assert waits(baton, job)["code"] == "starting"
    ledger.begun(conn, project="other")
    told = waits(baton, job)
    assert (told["code"], told["sentence"]) == (
        "busy",
        "The only slot of the worker online is taken.",
    )


def test_a_job_waits_for_its_users_limit_of_slots(baton: Baton, conn: Connection):
    online(conn)
    ledger.begun(conn, project="other")
    job = ledger.ask(conn)
    told = baton("jobs", str(job), "--json", BATON_USER_SLOTS="1").document["waits"]
    assert (told["code"], told["sentence"]) == (
        "user_slots",
        "Its user has a job at work, and BATON_USER_SLOTS allows 1 at a time.",
    )
    told = baton("jobs", str(job), "--json", BATON_USER_SLOTS="2").document["waits"]
    assert told["code"] == "no_relay"


def test_a_job_that_may_kill_its_worker_waits_for_one_without_such_a_job(
    baton: Baton, conn: Connection
):
    online(conn)
    job = ledger.ask(conn)
    conn.execute("update jobs set rescues = 2")
    assert waits(baton, job)["code"] == "no_relay"
    ledger.begun(conn, project="other")
    conn.execute("update jobs set last_chance = true where state = 'running'")
    assert waits(baton, job)["code"] == "last_chance"


def test_a_job_whose_project_is_deleted_or_gone_says_so(baton: Baton, conn: Connection):
    online(conn)
    job = ledger.ask(conn)
    receipt = receipts.begin(conn, "project", "p", host="here")
    conn.execute(
        "update deletions set todo = jsonb_set(todo, '{projects}', '{\"p\": null}') where id = %s",
        (receipt.id,),
    )
    assert waits(baton, job)["code"] == "deleting"
    receipts.close(conn, receipt.id)
    conn.execute("update projects set user_id = 'another'")
    assert waits(baton, job)["code"] == "project_gone"


def test_health_says_why_the_oldest_waits(baton: Baton, conn: Connection):
    ledger.ask(conn)
    assert baton("report", "health", "--json").document["oldest_waiting"]["waits"]["code"] == (
        "no_worker"
    )
    assert "No worker is online" in baton("report", "health").out


STATES = ("queued", "running", "parked", "done")


@given(st.lists(st.tuples(st.sampled_from(STATES), st.booleans(), st.booleans()), max_size=5))
@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_job_is_behind_another_exactly_when_it_is_not_in_turn(
    conn: Connection, others: list[tuple[str, bool, bool]]
):
    """Whatever else is in the lane: `others` are (state, has begun, is put off to a date)."""
    others = [(state, begun or state == "running", later) for state, begun, later in others]
    with conn.transaction(force_rollback=True):
        for state, begun, later in others:
            job = ledger.ask(conn)
            if state == "running" and ledger.one(
                conn, "select exists (select from jobs where state = 'running')"
            ):
                continue  # a second one in a lane is impossible
            conn.execute(
                """
                update jobs set state = %(state)s, attempt = gen_random_uuid(),
                       lease_until = case %(state)s when 'running' then now() end,
                       finished_at = case %(state)s when 'done' then now() end,
                       started_at = case when %(begun)s then now() end,
                       scheduled = %(later)s and %(state)s = 'queued' and not %(begun)s,
                       run_at = case when %(later)s then now() + interval '1 h' else run_at end
                 where id = %(id)s
                """,
                {"id": job, "state": state, "begun": begun, "later": later},
            )
        ledger.ask(conn)
        due = conn.execute(
            "select id, "
            + FIRST
            + " from jobs q where state in ('queued', 'parked') and run_at <= now()"
        ).fetchall()
        before = {
            fact.id: fact.before_id for fact in waiting.facts(conn, [one for one, _ in due])
        }
        assert {one: before[one] is None for one, _ in due} == dict(due)


def test_the_chain_and_the_doctor_say_why_the_next_one_waits(baton: Baton, conn: Connection):
    job = ledger.ask(conn)
    assert (
        f"Next comes the build {job}. It waits: No worker is online" in baton("chain", "p").out
    )
    checks = {one["name"]: one for one in baton("doctor", "--json").document["checks"]}
    assert checks["waiting"]["state"] == "ok"
    assert "a build of p for" in checks["waiting"]["text"]
    assert "No worker is online" in checks["waiting"]["text"]
    running = ledger.claim(conn, job)
    assert running
    assert f"The build {job} is at work: on host for" in baton("chain", "p").out
