"""What is published and when: the first of each lane, the most urgent first, once a round."""

import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
import redis
from psycopg import Connection

from db.core import events, pool
from db.jobs import outbox, workers
from db.jobs.attempts import CLAIM
from db.jobs.endings import FINISH
from db.jobs.lanes import Message
from db.jobs.workers import Worker
from db.sessions.commits import ADVANCE
from tests.conftest import Configure
from tests.invariants import violations
from tests.ledger import (
    LONGEST,
    RUNNER,
    SOON,
    advance,
    ask,
    at_once,
    begun,
    claim,
    finish,
    job_row,
    next_job,
    one,
    published,
    sent,
    turn,
    types,
)
from worker import relay
from worker.app import app
from worker.broker import publish
from worker.broker.bell import Bell
from worker.broker.queues import QUEUE
from worker.live import checkpoints

WORKER = Worker(
    "w1",
    "host",
    1,
    slots=3,
    box=None,
    cli_version="2",
    credential="c",
    worker_id=RUNNER.worker_id,
)


def take(conn: Connection, room: int = 10) -> list[Message]:
    while outbox.look(conn):
        pass
    return outbox.publish(conn, room=room, user_slots=0, pause=SOON, longest=LONGEST)


def taken(conn: Connection, room: int = 10) -> list[UUID]:
    return [message.id for message in take(conn, room)]


def make_due(conn: Connection) -> None:
    conn.execute(
        """
        update jobs set publish_after = now(), ready = false where state in ('queued', 'parked')
        """
    )


def written(seq: int) -> events.Written:
    return {"seq": seq, "job_id": None, "type": "noise", "body": {}}


def test_a_job_that_was_asked_for_is_published_and_told_of_once(conn: Connection):
    asked = ask(conn, previous_session_id=(hint := str(uuid4())))
    told = outbox.look(conn)
    assert [(p, e["seq"], e["job_id"]) for p, e in told] == [
        ("p", n, str(asked)) for n in (1, 2)
    ]
    assert [e["body"] for _, e in told] == [row.body for row in events.since(conn, "p", 0)]
    assert take(conn) == [Message(asked, "build", asked, None, 0, hint)]
    assert take(conn) == []
    make_due(conn)
    assert [message.published for message in take(conn)] == [1]
    assert types(conn) == ["job.queued", "chat.said"]
    assert claim(conn, asked)
    assert types(conn) == ["job.queued", "chat.said", "job.started"]


def test_a_row_that_is_not_first_in_its_lane_is_not_published(conn: Connection):
    first, second, other = ask(conn), ask(conn), ask(conn, project="q")
    assert taken(conn) == [first, other]
    assert taken(conn) == []
    make_due(conn)
    running = claim(conn, first)
    assert running
    assert taken(conn) == [other]
    make_due(conn)
    finish(conn, running, "failed")
    assert second in taken(conn)


def test_those_behind_are_looked_at_the_less_often_the_longer_they_have_waited(
    conn: Connection,
):
    """A safety net: what ends in their lane makes them due at once."""
    ask(conn)
    behind = [ask(conn) for _ in range(4)]
    for n, job in enumerate(behind):
        conn.execute(
            "update jobs set created_at = now() - %s, run_at = now() - %s where id = %s",
            (timedelta(seconds=50**n),) * 2 + (job,),
        )
    take(conn)
    pauses = [
        one(
            conn,
            "select round(extract(epoch from publish_after - now())) from jobs where id = %s",
            job,
        )
        for job in behind
    ]
    assert pauses == [2, 50, 2500, 3600]


def test_the_most_urgent_lane_goes_first_and_then_the_oldest(conn: Connection):
    asked = {n: ask(conn, project=f"p{n}", priority=n % 3) for n in range(6)}
    assert taken(conn, 4) == [asked[n] for n in (2, 5, 1, 4)]
    assert taken(conn, 4) == [asked[n] for n in (0, 3)]


def test_an_urgent_job_is_seen_over_any_backlog(conn: Connection):
    conn.execute(
        """
        insert into projects (project_id, user_id) select 'q' || n, 'u' from generate_series(1, 600) n;
        """
    )
    conn.execute(
        """
        insert into jobs (id, chain_id, project_id, user_id, kind, publish_after)
        select id, id, 'q' || n, 'u', 'build', now() - interval '1 h'
          from (select gen_random_uuid() as id, n from generate_series(1, 600) n) x
        """
    )
    urgent = ask(conn, priority=5)
    assert taken(conn, 1) == [urgent]


def test_within_a_lane_priority_changes_nothing(conn: Connection):
    first, second = ask(conn, priority=0), ask(conn, priority=9)
    assert taken(conn) == [first]
    assert claim(conn, second) is None


def test_a_room_that_is_full_leaves_the_rest_due(conn: Connection):
    for n in range(5):
        ask(conn, project=f"p{n}")
    assert len(taken(conn, 2)) == 2
    assert len(taken(conn, 10)) == 3
    assert taken(conn, 0) == []


def test_the_pause_doubles_until_somebody_claims(conn: Connection):
    asked = ask(conn)
    pauses = list[int]()
    for _ in range(10):
        make_due(conn)
        assert taken(conn) == [asked]
        pauses.append(
            int(one(conn, "select round(extract(epoch from publish_after - now())) from jobs"))
        )
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_each_message_of_a_job_has_a_number_of_its_own(conn: Connection):
    """A claim begins the pauses anew, not the numbers: Celery's task ids do not repeat."""
    asked = ask(conn)
    assert [m.published for m in take(conn)] == [0]
    job = claim(conn, asked)
    assert job
    conn.execute("update jobs set state = 'queued', lease_until = null, run_at = now()")
    make_due(conn)
    assert [m.published for m in take(conn)] == [1]
    assert one(conn, "select publish_after < now() + interval '3 s' from jobs")


def test_the_message_of_the_commit_counts_too(conn: Connection):
    job, following = begun(conn), next_job()
    moved = advance(conn, job, turn(conn, job), following=following)
    assert moved
    assert [m.published for m in moved.messages] == [0]
    assert taken(conn) == []  # not again before its pause is over
    make_due(conn)
    assert [(m.id, m.published) for m in take(conn)] == [(following.id, 1)]
    assert types(conn).count("job.queued") == 2


def test_two_relays_publish_no_job_twice_in_one_round(conn: Connection, dsn: str):
    asked = {ask(conn, project=f"p{n}") for n in range(40)}
    found = at_once(dsn, lambda own: taken(own, 40), 4)
    assert not [answer for answer in found if isinstance(answer, psycopg.Error)]
    published = [job for answer in found if isinstance(answer, list) for job in answer]
    assert len(published) == len(set(published))
    published += taken(conn, 40)  # one of them had its turn, perhaps before another had asked
    assert set(published) == asked
    assert violations(conn) == []


def test_a_relay_passes_over_what_another_holds(conn: Connection, dsn: str):
    held, free = ask(conn), ask(conn, project="q")
    with psycopg.connect(dsn) as other:
        other.execute("select from jobs where id = %s for update", (held,))
        conn.execute("set lock_timeout = '2s'")
        assert taken(conn) == [free]
        assert claim(conn, held) is None
    assert taken(conn) == [held]


def test_what_was_lost_with_the_queue_is_recalled(conn: Connection):
    asked = ask(conn)
    take(conn)
    assert outbox.recall(conn, older_than=timedelta(seconds=2)) == 0
    conn.execute("update jobs set published_at = now() - interval '3 s'")
    assert outbox.recall(conn, older_than=timedelta(seconds=2)) == 1
    assert taken(conn) == [asked]
    claim(conn, asked)
    assert outbox.recall(conn, older_than=timedelta(0)) == 0


def test_a_job_is_not_recalled_before_its_time(conn: Connection):
    ask(conn)
    take(conn)
    conn.execute(
        "update jobs set published_at = now() - interval '1 h', run_at = now() + interval '1 h'"
    )
    assert outbox.recall(conn, older_than=timedelta(0)) == 0


def test_ends_in_a_project_that_somebody_holds_keep_no_others_waiting(
    conn: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    """As many as one look takes, and more: they are the first by their ids."""
    monkeypatch.setattr(outbox, "MANY", 2)
    for n in range(3):
        ask(conn, id=UUID(int=n + 1))
    ask(conn, project="q")
    for project in "pq":
        ask(conn, project=project, busy="replace")
    with psycopg.connect(dsn) as operator:
        operator.execute("select from projects where project_id = 'p' for update")
        assert outbox.tell_ends(conn) == 1
        assert types(conn, "q") == ["chat.said", "job.cancelled"]
    assert [outbox.tell_ends(conn) for _ in range(3)] == [2, 1, 0]
    assert violations(conn) == []


def test_what_was_replaced_in_a_producers_transaction_is_told_once(conn: Connection, dsn: str):
    waiting = [ask(conn) for _ in range(3)]
    elsewhere = ask(conn, project="q")
    ask(conn, busy="replace")
    ask(conn, project="q", busy="replace")
    assert types(conn) == []
    told = at_once(dsn, outbox.tell_ends, 2)
    left = outbox.tell_ends(conn)  # each passes over what the other holds just then
    assert sum(n for n in told if isinstance(n, int)) + left == 4
    assert outbox.tell_ends(conn) == 0
    assert types(conn) == ["chat.said", "job.cancelled"] * 3
    assert set(one(conn, "select array_agg(job_id) from events where project_id = 'p'")) == set(
        waiting
    )
    assert one(
        conn,
        "select body ->> 'error_class' from events where job_id = %s and type = 'job.cancelled'",
        elsewhere,
    ) == ("replaced")
    assert violations(conn) == []


def test_workers_that_fell_silent_open_no_window(conn: Connection):
    workers.report(conn, WORKER)
    workers.report(conn, WORKER)
    assert outbox.room(conn, silent_after=timedelta(seconds=60)).slots == 3
    (found,) = workers.online(conn, silent_after=timedelta(seconds=60))
    assert (found.id, found.slots, found.cli_version) == ("w1", 3, "2")
    conn.execute("update workers set seen_at = now() - interval '2 min'")
    assert outbox.room(conn, silent_after=timedelta(seconds=60)).slots == 0
    workers.leave(conn, "w1")
    assert one(conn, "select count(*) from workers") == 0


@pytest.fixture
def services(dsn: str, redis_url: str, configure: Configure) -> Any:
    """This process's own pool and clients, on the test's database and Redis."""
    configure(DATABASE_URL=dsn, REDIS_URL=redis_url)
    app.conf.update(broker_url=redis_url)
    pool.close()
    checkpoints.client.cache_clear()
    with redis.Redis.from_url(redis_url, decode_responses=True) as broker:
        yield broker
    pool.close()


def test_the_relay_lets_a_message_out_for_each_slot_that_is_free(
    conn: Connection, services: Any
):
    for n in range(10):
        ask(conn, project=f"p{n}")
    assert relay.run_once() == relay.UNKNOWN  # no worker is known yet
    assert relay.run_once() == 0
    services.delete(QUEUE)
    conn.execute("update jobs set published_at = null, publish_after = now()")
    workers.report(conn, WORKER)
    assert relay.run_once() == WORKER.slots
    assert services.llen(QUEUE) == WORKER.slots
    first = UUID(re.findall(r'"id": "([^".]+)', services.rpop(QUEUE))[0])
    assert relay.run_once() == 0  # taken, and not claimed yet
    job = claim(conn, first)
    assert job
    assert relay.run_once() == 0
    finish(conn, job)
    assert relay.run_once() == 1


def test_a_flood_that_is_looked_at_delays_nobodys_message(
    services: Any, conn: Connection, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(outbox, "MANY", 5)
    monkeypatch.setattr(relay, "LOOKS", 2)
    for n in range(30):
        ask(conn, project=f"p{n}")
    first = relay.look_once()
    assert (first.sent, first.more) == (relay.UNKNOWN, True)
    assert one(conn, "select count(*) from jobs where announced") < 30
    looks = [relay.look_once() for _ in range(5)]
    assert not looks[-1].more
    assert one(conn, "select count(*) from jobs where announced") == 30


def test_a_ring_wakes_the_relay(services: Any, redis_url: str):
    bell, ended = Bell(), threading.Event()
    bell.wait(0, ended)  # it listens from now on
    for _ in range(3):
        publish.ring()
    began = time.monotonic()
    bell.wait(30, ended)
    assert time.monotonic() - began < 30, "it was rung"
    assert not bell.listener.get_message(timeout=0), "several rings are one"


def test_a_relay_with_nothing_to_do_asks_one_question(
    conn: Connection, dsn: str, configure: Configure
):
    configure(DATABASE_URL=dsn, REDIS_URL="redis://127.0.0.1:1/0")  # nobody answers there
    pool.close()
    ask(conn, run_at=datetime.now(UTC) + timedelta(hours=1))
    begun(conn, project="q")
    pool.pool().wait()  # else it may have two connections
    with pool.connection() as own:
        statements = sent(own)
    assert relay.run_once() == 0
    pool.close()
    assert len([one for one in statements if one]) == 1  # an empty one is the pool's ping


def test_a_wiped_redis_loses_nothing(conn: Connection, services: Any):
    asked = ask(conn)
    assert relay.run_once() == 1
    services.flushall()
    assert relay.run_once() == 0  # it may only have been taken
    conn.execute("update jobs set published_at = now() - interval '3 s'")
    assert relay.run_once() == 1
    assert services.llen(QUEUE) == 1
    assert job_row(conn, asked, "published, messages") == (2, 2)


def test_a_message_names_its_job_and_its_chain_and_no_more(conn: Connection, services: Any):
    job, following = begun(conn, prompt="a secret"), next_job()
    moved = advance(conn, job, minted := turn(conn, job), following=following)
    assert moved
    assert publish.send(moved.messages) == 1
    message = services.lpop(QUEUE)
    assert "a secret" not in message
    for part in (
        f'"id": "{following.id}"',
        f'"root_id": "{job.id}"',
        "tasks.metadata",
        f'"parent_id": "{job.id}"',
    ):
        assert part in message
    assert publish._body(moved.messages[0]) == {  # pyright: ignore[reportPrivateUsage]
        "job_id": str(following.id),
        "previous_session_id": minted,
    }


def test_ends_are_told_and_nothing_waits_long_while_redis_is_away(
    conn: Connection, dsn: str, configure: Configure
):
    configure(DATABASE_URL=dsn, REDIS_URL="redis://127.0.0.1:1/0")
    checkpoints.client.cache_clear()
    pool.close()
    ask(conn)
    job = begun(conn, project="q")
    ask(conn, busy="replace")
    began = time.monotonic()
    with pytest.raises(redis.ConnectionError):
        relay.run_once()
    assert types(conn) == ["chat.said", "job.cancelled", "job.queued", "chat.said"]
    publish.ring()
    assert publish.send([Message(job.id, "build", job.id, None, 0, None)]) == 0
    publish.announce("q", [written(1)], [])
    checkpoints.save(job.id, checkpoints.Checkpoint("s", "b", "/w", []))
    checkpoints.refresh(job.id)
    assert time.monotonic() - began < 10
    pool.close()
    checkpoints.client.cache_clear()


def test_the_copy_of_the_events_has_their_numbers(conn: Connection, services: Any):
    told = [written(6), written(7)]
    publish.announce("p", told, [])
    publish.announce("p", told, [])  # a repeat is refused by Redis
    publish.announce("p", [written(8), written(9)], [])
    with redis.Redis.from_url(_url(services, 2), decode_responses=True) as copy:
        entries: Any = copy.xrange(publish.stream("p"))
        assert [number for number, _ in entries] == ["6-0", "7-0", "8-0", "9-0"]
        assert 0 < int(copy.ttl(publish.stream("p"))) <= 24 * 3600  # pyright: ignore[reportArgumentType]


def test_a_checkpoint_has_the_contracts_fields_and_an_hour(services: Any):
    build = uuid4()
    saved = checkpoints.Checkpoint("s", str(build), "/w/p", ["index.html"])
    checkpoints.refresh(build)  # nothing there yet: nothing happens
    checkpoints.save(build, saved)
    with redis.Redis.from_url(_url(services, 1), decode_responses=True) as ours:
        name = f"claude:session:{build}"
        assert ours.get(name) == (
            f'{{"sessionId": "s", "buildId": "{build}", "projectPath": "/w/p", '
            '"filesCreated": ["index.html"]}'
        )
        ours.expire(name, 10)
        checkpoints.refresh(build)
        assert 3590 < int(ours.ttl(name)) <= 3600  # pyright: ignore[reportArgumentType]


def _url(client: Any, database: int) -> str:
    at = client.connection_pool.connection_kwargs
    who = f"{at['username']}:{at['password']}"
    return f"redis://{who}@{at['host']}:{at['port']}/{database}"


PLANNED: LiteralString = """
    insert into projects (project_id, user_id) select 'p' || n, 'u' from generate_series(0, 99) n;
    insert into jobs (id, chain_id, project_id, user_id, kind, publish_after, state, finished_at)
    select id, id, 'p' || n % 100, 'u', 'build',
           now() + case when n % 50 = 0 then interval '-1 s' else interval '1 h' end,
           case when n % 2 = 0 then 'queued' else 'done' end, case when n % 2 = 1 then now() end
      from (select gen_random_uuid() as id, n from generate_series(1, 10000) n) x;
    analyze jobs; analyze projects;"""


def test_the_hot_statements_keep_their_indexes_with_ten_thousand_jobs(
    conn: Connection, subtests: pytest.Subtests
):
    conn.execute(PLANNED)
    hot: list[tuple[str, LiteralString]] = [
        *(("claim", CLAIM), ("finish", FINISH), ("commit", ADVANCE)),
        ("owes", outbox.OWES),
        ("room", outbox.ROOM),
    ]
    for name, statement in hot:
        with subtests.test(name):
            assert "Seq Scan on jobs" not in explained(conn, statement)


def test_a_look_and_a_choice_keep_their_indexes_with_ten_thousand_jobs(conn: Connection):
    """As they are planned inside of the functions, and told by Postgres itself."""
    conn.execute(PLANNED)
    plans = list[str]()
    conn.add_notice_handler(lambda told: plans.append(told.message_primary or ""))
    conn.execute(AUTO_EXPLAIN)
    assert published(conn)
    seen = "\n".join(plan for plan in plans if plan.startswith("duration"))
    assert "Seq Scan on jobs" not in seen, seen
    for index in ("jobs_look", "jobs_ready", "jobs_asked", "jobs_begun"):
        assert index in seen


AUTO_EXPLAIN: LiteralString = """
    load 'auto_explain';
    set auto_explain.log_min_duration = 0;
    set auto_explain.log_nested_statements = on;
    set client_min_messages = log;"""


def explained(conn: Connection, statement: LiteralString) -> str:
    """The generic plan: what a statement that was prepared long ago does."""
    names = dict[str, int]()

    def number(found: re.Match[str]) -> str:
        return f"${names.setdefault(found[1], len(names) + 1)}"

    plain = re.sub(r"%\((\w+)\)s", number, statement)
    rows = conn.execute(("explain (generic_plan) " + plain).encode(), prepare=False).fetchall()
    return "\n".join(line for (line,) in rows)
