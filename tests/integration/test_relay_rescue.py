"""The relay takes the jobs of dead workers back, whatever else is away."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from db.jobs import attempts
from dev.agents.scripted import scripted
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker import relay
from worker.client import Build, ChatPlan
from worker.process import identity

pytestmark = pytest.mark.agent("direct")

ANSWER = '{"summary": "none", "recommendations": []}'
GONE = 1  # a pid that began at another time than the runner's


def claimed_by_the_dead(at_work: AtWork, job: UUID) -> None:
    runner = replace(identity.runner("w"), pid=GONE, pid_started=1)
    lease = timedelta(seconds=30)
    assert attempts.claim(
        at_work.conn, job, attempt=uuid4(), runner=runner, lease=lease, limit=3
    )


def test_the_chain_of_metadata_that_was_set_aside_still_compacts(at_work: AtWork):
    at_work.configure(BATON_RESCUE_LIMIT="1", BATON_COMPACT="never")
    asked = at_work.ask(Build(project=P, user=U, prompt="begin", model="opus"))
    at_work.run(asked, scripted(says=ANSWER))
    metadata = at_work.value("select id from jobs where kind = 'metadata'")
    claimed_by_the_dead(at_work, metadata)
    assert relay.rescue_once() == 1
    jobs = at_work.chain_of(asked)
    assert [(job.kind, job.state) for job in jobs] == [
        ("build", "done"),
        ("metadata", "quarantined"),
        ("compaction", "done"),
    ]
    assert jobs[-1].args == {"asked": "build", "model": "opus"}
    assert violations(at_work.conn) == []


def test_a_build_that_was_set_aside_ends_its_chain(at_work: AtWork):
    at_work.configure(BATON_RESCUE_LIMIT="1")
    asked = at_work.ask(Build(project=P, user=U, prompt="begin"))
    claimed_by_the_dead(at_work, asked)
    assert relay.rescue_once() == 1
    assert [job.state for job in at_work.chain_of(asked)] == ["quarantined"]


def test_the_dead_are_found_while_redis_is_away(at_work: AtWork):
    asked = at_work.ask(ChatPlan(project=P, user=U, prompt="begin"))
    claimed_by_the_dead(at_work, asked)
    at_work.configure(REDIS_URL="redis://127.0.0.1:1/0")
    assert relay.rescue_once() == 1
    assert at_work.job(asked).state == "queued"


def test_an_outage_sets_no_job_aside(at_work: AtWork):
    """Its worker may live, and be about to say so."""
    at_work.configure(BATON_RESCUE_LIMIT="3")
    asked = at_work.ask(ChatPlan(project=P, user=U, prompt="begin"))
    runner = identity.runner("w")  # this process: it lives
    lease = timedelta(0)
    assert attempts.claim(
        at_work.conn, asked, attempt=uuid4(), runner=runner, lease=lease, limit=3
    )
    at_work.conn.execute("update jobs set rescues = 2")
    assert relay.rescue_once(after_outage=True) == 1
    assert (at_work.job(asked).state, at_work.job(asked).rescues) == ("queued", 3)
    assert attempts.claim(
        at_work.conn, asked, attempt=uuid4(), runner=runner, lease=lease, limit=3
    )
    assert relay.rescue_once() == 1
    assert at_work.job(asked).state == "quarantined"
