"""Whose job is published next: by priority, then between users in turn, then by age.

What is real: every statement. Workers are simulated: a message is claimed, and ends when told.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import Connection

from db.core import ledger_settings
from db.core.events import Event
from db.jobs import attempts, endings, limits, outbox, relays, workers
from db.jobs.endings import Wait
from db.jobs.jobs import NEVER
from db.jobs.outbox import Room
from db.jobs.workers import Worker
from tests.conftest import Configure
from tests.counting import reading
from tests.invariants import violations
from tests.ledger import (
    LEASE,
    RUNNER,
    advance,
    ask,
    begun,
    claim,
    commit,
    finish,
    job_row,
    next_job,
    one,
    published,
    turn,
)
from tests.slots import Slots, flood


def relay_lives(conn: Connection) -> None:
    relays.report(conn, relay_id="r", host="h", boot="b", pid=1)


@pytest.fixture
def slots(conn: Connection) -> Slots:
    return Slots(conn)


@pytest.mark.parametrize(
    "many", [2, *(pytest.param(many, marks=pytest.mark.long) for many in (1, 5))]
)
@pytest.mark.parametrize("projects", [1, 5_000], ids=["one lane", "many lanes"])
def test_another_users_first_job_begins_after_one_end_a_slot_over_any_flood(
    conn: Connection, slots: Slots, many: int, projects: int
):
    slots.many = many
    flood(conn, 5_000, projects)
    slots.fill()
    theirs = ask(conn, project="theirs", user_id="bob")
    for ends in range(many + 1):
        if theirs in slots.fill():
            break
        slots.end(ends % len(slots.running))
    assert theirs in slots.running


def test_jobs_of_one_place_are_sent_in_the_order_of_their_ids(conn: Connection):
    """Racers have the place of their race: what sends them is not left to how rows lie on the disk."""
    ids = sorted((uuid4() for _ in range(12)), reverse=True)
    for n, job in enumerate(ids):
        ask(conn, project=f"p{n}", user_id="u", id=job)
    conn.execute("update jobs set pos = 7")
    assert published(conn, 5) == sorted(ids)[:5]


def test_the_last_to_come_is_seen_in_the_first_look_at_a_flood(conn: Connection):
    flood(conn, 3000, 1500)
    theirs = ask(conn, project="theirs", user_id="bob")
    conn.execute("select * from baton_look(500, '2 s')")
    assert job_row(conn, theirs, "ready")


def test_a_chain_that_goes_on_takes_no_other_users_turn(conn: Connection):
    relay_lives(conn)
    ask(conn)
    job = claim(conn, published(conn)[0])
    assert job
    theirs = ask(conn, project="theirs", user_id="bob")
    moved = advance(conn, job, turn(conn, job), following=(following := next_job()))
    assert moved
    assert [message.rung for message in moved.messages] == [False]
    assert published(conn, 1) == [theirs]
    assert claim(conn, theirs)
    assert published(conn, 1) == [following.id]


def test_a_chain_goes_on_at_once_when_nobody_waits(conn: Connection):
    job = begun(conn)
    ask(conn)  # behind it in its lane: no turn of theirs
    published(conn, 0)
    moved = advance(conn, job, turn(conn, job), following=next_job())
    assert moved
    assert [message.rung for message in moved.messages] == [True]
    assert published(conn) == []


def test_a_step_that_its_worker_rang_for_counts_as_served(conn: Connection):
    """Ann's chain went on by itself after Bob was served: when both wait, it is Bob's turn."""
    ask(conn, project="hers", user_id="ann")
    hers = claim(conn, published(conn)[0])
    ask(conn, project="his", user_id="bob")
    his = claim(conn, published(conn)[0])
    assert hers
    assert his
    finish(conn, his)
    outbox.note_served(conn, "ann")
    older = ask(conn, project="another-of-hers", user_id="ann")
    theirs = ask(conn, project="his", user_id="bob")
    finish(conn, hers)
    assert published(conn, 1) == [theirs]
    assert claim(conn, theirs)
    assert published(conn, 1) == [older]


def test_the_end_of_a_chain_begins_no_other(conn: Connection):
    """Its lane's next chain is chosen like any other: by age, between all lanes."""
    job = begun(conn)
    elsewhere, mine = ask(conn, project="q"), ask(conn)
    assert published(conn, 0) == []
    moved = advance(conn, job, turn(conn, job))
    assert moved
    assert moved.messages == []
    assert published(conn, 2) == [elsewhere, mine]


def test_projects_of_one_user_begin_in_the_order_of_asking(conn: Connection, slots: Slots):
    """Thirty builds over twelve projects on two slots, as it was reported: the seventh project
    waited for three chains of each of the first six."""
    asked = [ask(conn, project=f"p{n % 12}") for n in range(30)]
    began = list[UUID]()
    while len(began) < len(asked):
        began += slots.fill()
        slots.end()
    assert began == asked


def test_an_urgent_job_is_next_whoever_waits(conn: Connection, slots: Slots):
    flood(conn, 100, 50)
    slots.fill()
    urgent = ask(conn, project="theirs", user_id="bob", priority=1000)
    hers = ask(conn, project="flood0", user_id="ann", priority=1001)
    slots.end()
    assert slots.fill() == [urgent]  # the other is behind an earlier one of its lane
    assert hers not in slots.running


def test_no_user_runs_more_than_the_limit(conn: Connection, slots: Slots):
    slots.many = 6
    flood(conn, 100, 50)
    assert len(slots.fill(user_slots=2)) == 2
    theirs = [ask(conn, project=f"t{n}", user_id="bob") for n in range(3)]
    assert slots.fill(user_slots=2) == theirs[:2]
    assert slots.fill(user_slots=2) == []
    slots.end(0)
    (again,) = slots.fill(user_slots=2)
    assert job_row(conn, again, "user_id") == "ann"


def test_the_limit_of_a_user_is_the_ledgers_for_the_relay_and_for_who_claims(
    conn: Connection, configure: Configure, slots: Slots
):
    slots.many = 6
    flood(conn, 10, 10)
    configure(BATON_USER_SLOTS="2")
    ledger_settings.tell(conn)
    configure(BATON_USER_SLOTS=None)
    assert len(slots.fill(user_slots=5)) == 2, "a relay that was told another number"
    (another,) = conn.execute("select id from jobs where ready limit 1").fetchall()
    assert claim(conn, another[0]) is None, "a worker that was told none"


@dataclass
class Reference:
    """Who is next, in plain Python: one job after the other, from all that is ready."""

    load: Counter[str] = field(default_factory=Counter[str])
    served: dict[str, int] = field(default_factory=dict[str, int])  # which choice was the last
    choices: int = 0

    def choose(self, ready: dict[UUID, tuple[str, int, int]], room: int) -> list[UUID]:
        """`ready`: user, priority and place of each."""
        chosen, now, left = list[UUID](), Counter[str](), dict(ready)

        def rank(job: UUID) -> tuple[int, int, int, int, int]:
            user, priority, place = left[job]
            return -priority, self.load[user], now[user], self.served.get(user, 0), place

        while left and len(chosen) < room:
            chosen.append(job := min(left, key=rank))
            user, _, _ = left.pop(job)
            self.load[user] += 1
            now[user] += 1
        for job in chosen:
            self.choices += 1
            self.served[ready[job][0]] = self.choices
        return chosen


def ready_of(conn: Connection) -> dict[UUID, tuple[str, int, int]]:
    rows = conn.execute(
        """
        select id, user_id, priority, pos from jobs q
         where state = 'queued' and published_at is null
           and baton_first(project_id, lane, chain_id, pos, false)
        """
    )
    return {job: (user, priority, place) for job, user, priority, place in rows}


@pytest.mark.parametrize("part", range(4))
def test_the_choice_is_what_the_rules_say_one_after_the_other(
    conn: Connection, slots: Slots, part: int
):
    rng = Random(part)
    reference = Reference()
    for _ in range(60):
        for _ in range(rng.choice((0, 1, 1, 3))):
            user = rng.choice("abcde")
            ask(
                conn,
                project=f"{user}{rng.randrange(3)}",
                user_id=user,
                priority=rng.choice((0, 0, 0, 5)),
            )
        slots.many = rng.choice((1, 2, 3, 6))
        while slots.running and rng.random() < 0.6:
            at = rng.randrange(len(slots.running))
            reference.load[job_row(conn, slots.running[at], "user_id")] -= 1
            slots.end(at)
        expected = reference.choose(ready_of(conn), slots.many - len(slots.running))
        assert slots.fill() == expected


def test_what_waits_for_its_time_costs_its_lane_and_the_look_nothing(
    conn: Connection, dsn: str
):
    """Ten thousand jobs for next week: a claim, a look and a renewal read as few rows as ever."""
    cost = [_reads(conn, scheduled) for scheduled in (10, 10_000)]
    assert cost[1] <= cost[0] + 20, cost


def _reads(conn: Connection, scheduled: int) -> int:
    project = f"p{scheduled}"
    begun(conn, project=project)
    conn.execute(
        """
        with new as (select gen_random_uuid() as id from generate_series(1, %s))
        insert into jobs (id, chain_id, project_id, user_id, kind, run_at, publish_after, scheduled)
        select id, id, %s, 'u', 'build', now() + interval '7 d', now() + interval '7 d', true
          from new
        """,
        (scheduled, project),
    )
    conn.execute("vacuum analyze jobs")
    due = [ask(conn, project=project) for _ in range(5)]
    with reading(conn) as read:
        published(conn)
        for job in due:
            claim(conn, job)
        conn.execute("select id from jobs j where " + INTERRUPTED, (project,))
    return read.rows


INTERRUPTED: LiteralString = """
    project_id = %s and lane = 'main' and finished_at is null and started_at is null
    and args ->> 'busy' = 'interrupt'"""


def test_a_user_who_has_nothing_ready_is_in_nobodys_way(conn: Connection):
    """What was ready and went another way (cancelled, or claimed by a late message)."""
    ask(conn, project="gone", user_id="bob")
    published(conn, 0)
    conn.execute("delete from jobs")
    mine = ask(conn)
    assert published(conn, 1) == [mine]
    assert one(conn, "select count(*) from user_turns where priority is not null") == 0


def test_a_worker_whose_credential_is_limited_offers_no_slot(conn: Connection):
    minute = timedelta(minutes=1)
    for name in ("one", "two"):
        worker = Worker(name, "host", 1, slots=3, box=None, cli_version="2", credential=name)
        workers.report(conn, worker)
    limits.impose(conn, "one", wait=minute, reason="rate_limit")
    room = outbox.room(conn, silent_after=minute)
    assert (room.workers, room.slots) == (2, 3)


def test_where_every_credential_is_limited_what_waits_is_parked_with_the_reason(
    conn: Connection,
):
    minute = timedelta(minutes=1)
    worker = Worker("w", "host", 1, slots=3, box=None, cli_version="2", credential="one")
    workers.report(conn, worker)
    limits.impose(conn, "one", wait=None, reason="authentication_failed")
    assert outbox.room(conn, silent_after=minute).slots == 3
    mine = ask(conn)
    assert published(conn, 1) == [mine]
    limits.park_waiting(conn, mine, "one", silent_after=minute)
    assert job_row(conn, mine) == "parked"
    assert published(conn, 1) == [], "no message in vain"


def test_a_chain_that_was_built_frees_its_lane_for_the_next(conn: Connection):
    first, second = ask(conn), ask(conn)
    assert published(conn) == [first]
    job = claim(conn, first)
    assert job
    assert published(conn) == []
    commit(conn, job)
    assert published(conn) == [second]


def test_a_job_that_is_held_when_its_lane_is_free_is_looked_at_again(
    conn: Connection, dsn: str
):
    job, waiting = begun(conn), ask(conn)
    published(conn)
    conn.execute("update jobs set created_at = now() - interval '1 d', publish_after = now()")
    published(conn)  # so it would rest for an hour
    with psycopg.connect(dsn) as other:
        other.execute("select from jobs where id = %s for update", (waiting,))
        finish(conn, job, "failed")
        assert published(conn) == []
    assert published(conn) == [waiting]


def test_due_jobs_that_somebody_holds_hide_none_of_those_between_the_oldest_and_the_newest(
    conn: Connection, dsn: str
):
    asked = [ask(conn, project=f"p{n}") for n in range(9)]
    for n, job in enumerate(asked):
        conn.execute(
            "update jobs set publish_after = now() - interval '1 h' + %s * interval '1 min'"
            " where id = %s",
            (n, job),
        )
    free = asked[4]
    with psycopg.connect(dsn) as operator:
        operator.execute("select from jobs where id <> %s for update", (free,))
        conn.execute("select * from baton_look(2, '1 h')")
        assert one(conn, "select array_agg(id) from jobs where ready") == [free]


@pytest.mark.parametrize("state", ["queued", "parked"])
@pytest.mark.parametrize("seen", [True, False], ids=["seen by its worker", "not seen yet"])
def test_a_chain_that_goes_to_wait_makes_way_for_a_request_that_interrupts(
    conn: Connection, dsn: str, state: str, seen: bool
):
    """Its worker looks once; what it could not see (a producer's open transaction) the relay does."""
    job = begun(conn)
    wait = Wait(state=state, until=NEVER, counted=False, error_class="ask")
    with psycopg.connect(dsn) as producer:
        newer = ask(producer, busy="interrupt")
        if seen:
            producer.commit()
        put = endings.put_back(conn, job, wait, [Event("job.waits", job.id)])
        producer.commit()
    if seen:
        assert put is None
        assert attempts.wanted(conn, job.id, job.attempt) == "replaced"
        finish(conn, job, "cancelled")
    else:
        assert job_row(conn, job.id) == state
    assert published(conn) == [newer]
    assert job_row(conn, job.id) == "cancelled"
    outbox.tell_ends(conn)
    assert violations(conn) == []


def test_a_request_that_interrupts_clears_nothing_that_was_asked_for_later(conn: Connection):
    newer = ask(conn, busy="interrupt")
    later = ask(conn)
    next_week = ask(conn, run_at=datetime.now(UTC) + timedelta(days=7))
    assert published(conn) == [newer]
    assert {job_row(conn, job) for job in (later, next_week)} == {"queued"}


def test_a_plain_message_takes_nobodys_turn(conn: Connection):
    """What no relay has chosen begins only if nobody waits who goes before it."""
    relay_lives(conn)
    first = ask(conn, project="hers", user_id="ann")
    plain = ask(conn, project="his", user_id="bob")
    attempt = partial(attempts.claim, conn, runner=RUNNER, lease=LEASE, limit=3, chosen=False)
    assert attempt(plain, attempt=uuid4()) is None
    assert published(conn, 1) == [first]
    assert claim(conn, first)
    assert attempt(plain, attempt=uuid4()), "nobody waits any more"


@pytest.mark.parametrize("silent", [None, 11])
def test_without_a_relay_nobody_is_waited_for_whom_only_a_relay_would_send(
    conn: Connection, silent: int | None
):
    """A worker by itself does what its messages say, and its chains go on."""
    if silent:
        relay_lives(conn)
        conn.execute("update relays set seen_at = now() - make_interval(secs => %s)", (silent,))
    ask(conn, project="hers", user_id="ann")
    plain = ask(conn, project="his", user_id="bob")
    attempt = partial(attempts.claim, conn, runner=RUNNER, lease=LEASE, limit=3, chosen=False)
    job = attempt(plain, attempt=uuid4())
    assert job
    moved = advance(conn, job, turn(conn, job), following=next_job())
    assert moved
    assert [message.rung for message in moved.messages] == [True]


def test_what_runs_on_a_worker_that_goes_or_is_limited_takes_no_slot_of_another(
    conn: Connection,
):
    minute = timedelta(minutes=1)
    mine = replace(RUNNER, worker_id="b/2")
    for name, worker_id in (("one", RUNNER.worker_id), ("two", mine.worker_id)):
        worker = Worker(name, "host", 1, 2, None, "2", credential=name, worker_id=worker_id)
        workers.report(conn, worker)
    for n in range(2):
        assert begun(conn, project=f"p{n}")
    assert outbox.room(conn, silent_after=minute) == Room(workers=2, slots=4, busy=2, out=0)
    limits.impose(conn, "one", wait=minute, reason="rate_limit")
    assert outbox.room(conn, silent_after=minute) == Room(workers=2, slots=2, busy=0, out=0)
    limits.clear(conn, "one")
    workers.leave(conn, "one")
    assert outbox.room(conn, silent_after=minute) == Room(workers=1, slots=2, busy=0, out=0)


def test_ends_of_a_lane_whose_first_is_ready_hide_no_other_lanes_end(conn: Connection):
    first = ask(conn, project="crowd")
    behind = [ask(conn, project="crowd") for _ in range(5)]
    job, waiting = begun(conn, project="other"), ask(conn, project="other")
    published(conn, 0)
    assert job_row(conn, first, "ready")
    conn.execute("update jobs set publish_after = now() + interval '1 h' where not ready")
    conn.execute("select * from baton_look(1, '1 h')")
    for each in behind[1:]:
        conn.execute(
            "update jobs set state = 'cancelled', finished_at = now() where id = %s", (each,)
        )
    finish(conn, job, "failed")
    for _ in range(10):
        conn.execute("select * from baton_look(1, '1 h')")
    assert job_row(conn, waiting, "ready")
    assert one(conn, "select count(*) from lane_ends") == 0


def test_an_end_in_a_lane_costs_the_same_whatever_its_future_holds(conn: Connection):
    """Rows that are read to find who waits there, as Postgres counts them."""
    ask(conn)
    conn.execute(
        """
        insert into jobs (id, chain_id, project_id, user_id, kind, run_at, publish_after, scheduled)
        select id, id, 'p', 'u', 'build', now() + interval '1 day', now() + interval '1 day', true
          from (select gen_random_uuid() as id from generate_series(1, 3000)) new
        """
    )
    conn.execute("vacuum analyze jobs")
    conn.execute("set enable_seqscan = off")  # as in a table that is larger than one lane
    with reading(conn) as read:
        assert one(conn, "select count(*) from baton_waiting('p', 'main')") == 1
    assert read.rows < 20
