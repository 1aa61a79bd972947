"""Connections to Postgres that are cut before, and exactly after, a statement is sent.

"Commit outcome unknown" is settled by reading the attempt: nothing is lost, nothing is
done twice, and a turn that was paid for counts.
"""

import random
from typing import LiteralString
from uuid import UUID

import psycopg
import pytest

from db.jobs import jobs
from db.jobs.attempts import CLAIM
from db.jobs.endings import FINISH, PUT_BACK
from db.sessions.commits import ADVANCE
from tests.faults.conftest import Tally
from tests.faults.driving import drive, meanwhile, through_a_wire, wrong
from tests.faults.wire import When
from tests.running import AtWork, P, U
from worker.agent import Request, Turn
from worker.client import Build, Update
from worker.failures.errors import AgentFailed
from worker.job.run import Ran

pytestmark = pytest.mark.timeout(600)
WHEN: list[When] = ["before", "sent", "answered"]
# A part of each statement's text that no other has.
CLAIMS = "update jobs set state = 'running', attempt ="
MOVES = "update projects p set last_ai_session_id ="
ENDS = "lease_until = null, error_class ="
WAITS = "update jobs set state = w.state"
PROMPT = "run: echo {n} >> log.txt\nsay done {n}"


def test_the_statements_are_known_by_their_texts():
    texts: list[LiteralString] = [CLAIM, ADVANCE, FINISH, PUT_BACK]
    for mark, text in zip((CLAIMS, MOVES, ENDS, WAITS), texts, strict=True):
        assert [mark in " ".join(one.split()) for one in texts].count(True) == 1
        assert mark in " ".join(text.split())


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("mark", [CLAIMS, MOVES], ids=["claim", "commit"])
def test_a_lost_connection_costs_neither_a_turn_nor_an_attempt(
    at_work: AtWork, dsn: str, mark: str, when: When, tally: Tally, redis_url: str
):
    tally.fault = f"Postgres: connection cut at the {'claim' if mark == CLAIMS else 'commit'}"
    tally.fault += f", {when}"
    with through_a_wire(at_work, dsn) as wire:
        asked = at_work.ask(Build(project=P, user=U, prompt=PROMPT.format(n=1)))
        cut = wire.cut_at(mark, when)
        ran = at_work.run(asked)
        assert cut.struck.is_set()
        assert ran == Ran("done")
    tally.ran()
    job = at_work.job(asked)
    assert (job.state, job.attempts, job.rescues) == ("done", 1, 0)
    assert turns_seen(at_work, 1) == 1
    assert (at_work.place / "log.txt").read_text() == "1\n"
    assert [len(at_work.events(kind)) for kind in ("job.started", "job.done")] == [1, 1]
    jobs.cancel(at_work.conn, asked)
    tally.check(wrong(at_work, redis_url))


@pytest.mark.agent("direct")  # for what follows
@pytest.mark.parametrize(
    "when", ["before", pytest.param("sent", marks=pytest.mark.long), "answered"]
)
@pytest.mark.parametrize(("kind", "mark"), [("server_error", WAITS), ("max_turns", ENDS)])
def test_a_lost_connection_does_not_hide_how_an_attempt_ended(
    at_work: AtWork, dsn: str, kind: str, mark: str, when: When, tally: Tally
):
    ends = "failed" if mark == ENDS else "queued"
    tally.fault = f"Postgres: connection cut at an ending ({ends}), {when}"

    def failing(request: Request, **more: object) -> Turn:
        raise AgentFailed(
            kind, "It failed.", 500 if kind == "server_error" else None, ending=kind
        )

    with through_a_wire(at_work, dsn) as wire:
        asked = at_work.ask(Build(project=P, user=U, prompt="say 1"))
        cut = wire.cut_at(mark, when)
        ran = at_work.run(asked, failing)
        assert cut.struck.is_set()
    tally.ran()
    assert (ran.state, ran.error_class) == ("waits" if ends == "queued" else ends, kind)
    job = at_work.job(asked)
    assert (job.state, job.attempts, job.error_class) == (ends, 1, kind)
    assert len(at_work.events("job.waits" if ends == "queued" else "job.failed")) == 1
    drive(at_work, asked)
    tally.check(wrong(at_work))


@pytest.mark.long
@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("mark", [CLAIMS, MOVES], ids=["claims", "commits"])
def test_a_chain_whose_every_job_is_cut_off_is_done_once(
    at_work: AtWork, dsn: str, mark: str, when: When, tally: Tally, redis_url: str
):
    tally.fault = f"Postgres: every {'claim' if mark == CLAIMS else 'commit'} of a chain cut,"
    tally.fault += f" {when}"
    at_work.configure(BATON_COMPACT="always")
    with through_a_wire(at_work, dsn) as wire:
        for n in (1, 2):
            kind = Build if n == 1 else Update
            asked = at_work.ask(kind(project=P, user=U, prompt=PROMPT.format(n=n)))
            cuts = list[bool]()
            while waiting := next_of(at_work, asked):
                cut = wire.cut_at(mark, when)
                second = wire.cut_at(mark, when, spared=2)  # metadata has two steps
                assert at_work.run(waiting) == Ran("done")
                cuts.append(cut.struck.is_set())
                tally.ran(1 + second.struck.is_set())
                wire.cuts.clear()
            assert cuts == [True] * 3
            assert turns_seen(at_work, n) == 1
    assert [job.attempts for job in drive(at_work, asked)] == [1, 1, 1]
    assert (at_work.place / "log.txt").read_text() == "1\n2\n"
    assert len(at_work.moves()) == 8
    tally.check(wrong(at_work, redis_url))


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("cut", marks=pytest.mark.agent("direct")),
        pytest.param("terminated", marks=pytest.mark.long),
    ],
)
def test_chains_come_through_connections_that_are_lost_at_random(
    at_work: AtWork, dsn: str, how: str, long: bool, tally: Tally, seed: int, redis_url: str
):
    tally.fault = f"Postgres: connections {how} at random"
    at_work.configure(BATON_COMPACT="always")
    draw = random.Random(seed)
    with through_a_wire(at_work, dsn) as wire, psycopg.connect(dsn, autocommit=True) as other:

        def strike() -> None:
            tally.ran(wire.cut() if how == "cut" else terminate(other))

        with meanwhile(strike, lambda: draw.uniform(0.05, 1.0)):
            for n in range(4 if long else 1):
                kind = Update if at_work.head() else Build
                asked = at_work.ask(kind(project=P, user=U, prompt=PROMPT.format(n=n)))
                states = [job.state for job in drive(at_work, asked)]
                assert states == ["done"] * 3, f"seed {seed}"
    written = (at_work.place / "log.txt").read_text().split()
    assert written == [str(n) for n in range(4 if long else 1)]
    tally.check(wrong(at_work, redis_url))


def terminate(conn: psycopg.Connection) -> int:
    """End all backends of the workers; returns how many."""
    return conn.execute(
        """
        select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = 'baton'
        """
    ).rowcount


def turns_seen(at_work: AtWork, n: int) -> int:
    """How many sessions began with the n-th prompt as their newest, as the model saw it."""
    return len(
        {one.session for one in at_work.model.requests if one.prompt == PROMPT.format(n=n)}
    )


def next_of(at_work: AtWork, asked: UUID) -> UUID | None:
    rows = at_work.rows(
        "select id from jobs where chain_id = %s and state = 'queued' order by created_at",
        asked,
    )
    return rows[0][0] if rows else None
