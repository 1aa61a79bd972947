"""Claim, lease, relay, parking, checks and races hold, however the steps of those who use them interleave.

A hundred thousand histories in the long run, each drawn from a seed that is told when it
fails; the same seed is the same history. Ledgers and workers that lack a rule are caught.
"""

import time
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from uuid import UUID

import pytest

from db.core.migrate import FUNCTIONS
from db.jobs import attempts, checks, endings, lanes, limits, outbox, rescue
from db.jobs.attempts import Runner
from db.projects import races
from db.sessions import commits
from tests.faults.actors import ask, simulate
from tests.faults.clock import Clock, moment, open_clock
from tests.faults.compared import LEASE, Ledger
from tests.faults.conftest import Tally
from tests.faults.pair import Broken
from tests.invariants import violations

PARTS = 20  # of the long run: processes share it, and what is deleted does not pile up
SHORT, LONG = 300, 100_000  # histories
AUDIT_EVERY = 200  # histories: the invariants of all of them are looked up at once
ANY_SEED = 1  # what is broken on purpose shows from every one
ENOUGH = 3000  # histories within which what is broken on purpose shows


@pytest.fixture
def clock(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    # Long statements are not translated anew each time: a hundred thousand histories commit often.
    for limit in ("LENGTH", "PARAMS"):
        monkeypatch.setattr(f"psycopg._queries.MAX_CACHED_STATEMENT_{limit}", 2**16)
    with open_clock(empty_dsn) as opened:
        yield opened


def play(clock: Clock, seed: str, *, flaws: frozenset[str] = frozenset()) -> Ledger:
    """The history of that seed. One that breaks a promise is told whole."""
    try:
        return simulate(clock, seed, flaws=flaws)
    except Broken as exc:
        exc.add_note(f"simulate(clock, {seed!r}) gives this history:\n{exc.trace}")
        raise


def audit(clock: Clock) -> None:
    """Look the invariants up for all that was played since the last time."""
    while outbox.tell_ends(clock.conn):
        pass
    if wrong := violations(clock.conn, ended=True):
        raise Broken("; ".join(wrong[:5]))  # a project's id names its history's seed
    clock.begin_anew()


def play_all(
    clock: Clock, seed: int, first: int, times: int, *, flaws: frozenset[str] = frozenset()
) -> Counter[str]:
    """Play so many histories; returns what was seen in them, each kind of thing counted."""
    seen = Counter[str]()
    for n in range(first, first + times):
        seen.update(play(clock, f"{seed}.{n}", flaws=flaws).seen)
        if n % AUDIT_EVERY == AUDIT_EVERY - 1:
            audit(clock)
    audit(clock)
    return seen


@pytest.mark.computes
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "part", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, PARTS))]
)
def test_no_interleaving_breaks_a_promise(
    clock: Clock, tally: Tally, seed: int, long: bool, part: int
):
    tally.fault = "interleavings of claim, lease, relay, parking, checks and races"
    tally.simulated = "processes, broker, agent, time"
    times, began = LONG // PARTS if long else SHORT, time.monotonic()
    try:
        seen = play_all(clock, seed, part * times, times)
    except Broken as exc:
        tally.check([str(exc), *getattr(exc, "__notes__", [])])
        raise
    tally.ran(times)
    took = time.monotonic() - began
    tally.note = (
        f"{took:.0f} s; {seen['late']} late writes refused, {seen['rescued']} rescued,"
        f" {seen['mended']} repairs; races: {seen['raced']} begun, {seen['promoted']} won,"
        f" {seen['not promoted']} with the head moved"
    )
    rare = {"quarantined", "not promoted"} if long else set[str]()
    common = {"late", "rescued", "parked", "cancelled", "killed"}
    missing = (common | {"mended", "raced", "promoted"} | rare) - set(seen)
    assert not missing, f"in none of the histories: {missing}"


def test_a_seed_is_one_history(clock: Clock):
    for n in range(20):
        first = play(clock, f"seed.{n}").trace
        clock.begin_anew()
        assert play(clock, f"seed.{n}").trace == first
        clock.begin_anew()


# What is broken on purpose


@pytest.mark.long  # the flawed actors below show it in the short run
@pytest.mark.parametrize(
    ("module", "statement", "rule", "instead"),
    [
        (commits, "ADVANCE", "and attempt = %(attempt)s", ""),
        (commits, "ADVANCE", "and lease_until > now()", ""),
        (endings, "FINISH", "and attempt = %(attempt)s", ""),
        (endings, "PUT_BACK", "or exists (select from the_limit)", "or true"),
        (attempts, "CLAIM", lanes.FIRST, "true"),
        (attempts, "CLAIM", "and l.until > now()", "and false"),
        (checks, "RECORD", "and attempt = %(attempt)s and state = 'running'", ""),
        (races, "TOLD_SOONER", "run_at = now(), ", ""),
        (rescue, "RESCUE", "j.lease_until < now()", "true"),
        (rescue, "RESCUE", "greatest(j.attempts - 1, 0)", "j.attempts"),
        (rescue, "RESCUE", "j.rescues + 1 >= %(limit)s", "j.rescues > %(limit)s"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else None,
)
def test_a_ledger_that_lacks_a_rule_is_caught(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    statement: str,
    rule: str,
    instead: str,
):
    whole: str = getattr(module, statement)
    assert rule in whole
    monkeypatch.setattr(module, statement, whole.replace(rule, instead))
    with pytest.raises(Broken):
        play_all(clock, ANY_SEED, 0, ENOUGH)


ORDER = FUNCTIONS / "order.sql"


@pytest.mark.long
@pytest.mark.parametrize(
    ("rule", "instead"),
    [
        ("(o.project_id, o.lane, o.pos) < (project, line, place)", "false"),
        ("and o.chain_id <> chain", "and false"),
    ],
)
def test_an_order_that_lacks_a_rule_is_caught(clock: Clock, rule: str, instead: str):
    text = ORDER.read_text()
    assert rule in text
    clock.conn.execute(text.replace(rule, instead).encode(), prepare=False)
    with pytest.raises(Broken):
        play_all(clock, ANY_SEED, 0, ENOUGH)


@pytest.mark.parametrize(
    ("flaw", "sentence"),
    [
        ("a commit by hand", "the model"),
        ("an agent that outlives its trust", "two agents are alive in a lane"),
        ("a relay that does not look", "the window is"),
        ("a relay that does not rescue", "is running for ever"),
    ],
)
def test_a_process_that_breaks_a_rule_is_caught(clock: Clock, flaw: str, sentence: str):
    with pytest.raises(Broken, match=sentence):
        play_all(clock, ANY_SEED, 0, ENOUGH, flaws=frozenset({flaw}))


def test_the_clock_is_ours_in_statements_defaults_and_functions(clock: Clock):
    ledger = Ledger(clock)
    runner = Runner("worker", "host", "boot", 4711, 99, "credential")
    for n in (100, 2000):  # the second time everything is prepared
        ledger.tick(n)
        job_id = UUID(int=n)
        assert ask(clock.conn, f"p{n}", "build", job_id)
        assert attempts.claim(
            clock.conn,
            job_id,
            attempt=job_id,
            runner=runner,
            lease=moment(LEASE) - moment(0),
            limit=3,
        )
        row = clock.conn.execute(
            """
            select created_at, run_at, claimed_at, lease_until,
                   (select min(at) from events e where e.job_id = jobs.id), clock_timestamp()
              from jobs where id = %s
            """,
            (job_id,),
        ).fetchone()
        now = moment(clock.now)
        assert row == (now, now, now, moment(clock.now + LEASE), now, now)
    assert limits.standing(clock.conn, "credential") is None
