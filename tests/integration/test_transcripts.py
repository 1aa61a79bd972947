"""Transcripts on a real Postgres: equal when loaded, stored once, whole or refused."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import Connection

from db.transcripts import appends, listings, transcripts
from db.transcripts.transcripts import TranscriptDamaged
from tests.waiting import wait_until

Entry = dict[str, Any]
P = "project"

on_one_database = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

text = st.text(st.characters(), max_size=8)  # NULs and lone surrogates among them
scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False)
    | text
)
value = st.recursive(
    scalar,
    lambda of: st.lists(of, max_size=3) | st.dictionaries(text, of, max_size=3),
    max_leaves=8,
)
volatile = st.sampled_from(["s1", "s2", None, 1, 1.0, True, "\0", "\ud800"])
entry = st.fixed_dictionaries(
    {"type": st.sampled_from(["user", "assistant", "mode"])},
    optional={
        "uuid": st.sampled_from(["a", "b", "\ud800", str(uuid4()), str(uuid4())]) | st.none(),
        "sessionId": volatile,
        "promptId": volatile,
        "requestSessionId": volatile,
        "message": value,
        "\0": value,
    },
)


@on_one_database
@given(batches=st.lists(st.lists(entry, max_size=6), min_size=1, max_size=4))
@example(batches=[[{"type": "x", "n": 1}, {"type": "x", "n": 1.0}, {"type": "x", "n": True}]])
@example(batches=[[{"type": "x", "slug": None}, {"type": "x"}], [{"type": "x", "slug": None}]])
def test_what_is_loaded_equals_what_was_appended(conn: Connection, batches: list[list[Entry]]):
    session = str(uuid4())
    for batch in batches:
        append(conn, session, batch)
    expected = once_per_uuid([as_json(one) for batch in batches for one in batch])
    assert exactly(transcripts.load(conn, P, session) or []) == exactly(expected)


@on_one_database
@given(history=st.lists(entry, min_size=1, max_size=12), new=st.lists(entry, max_size=3))
def test_a_fork_stores_nothing_but_what_is_new(
    conn: Connection, history: list[Entry], new: list[Entry]
):
    history = [one | {"uuid": str(uuid4()), "of": n} for n, one in enumerate(history)]
    new = [one | {"uuid": str(uuid4()), "new": n} for n, one in enumerate(new)]
    parent, child = str(uuid4()), str(uuid4())
    append(conn, parent, history)
    bodies, batches = count(conn, "transcript_entries"), count(conn, "transcript_batches")

    append(conn, child, [*forked(history, child), *new])

    assert count(conn, "transcript_entries") == bodies + len(new)
    assert count(conn, "transcript_batches") == batches + 1
    expected = [as_json(one) for one in [*forked(history, child), *new]]
    assert exactly(transcripts.load(conn, P, child) or []) == exactly(expected)
    assert exactly(transcripts.load(conn, P, parent) or []) == exactly(map(as_json, history))


def test_a_long_history_forked_again_and_again_costs_a_small_row_each(conn: Connection):
    history = said("root", 500)
    append(conn, "s0", history)
    for n in range(1, 20):
        history = [*forked(history, f"s{n}"), *said(f"turn {n}", 2)]
        append(conn, f"s{n}", history)
    largest = conn.execute("select max(pg_column_size(b)) from transcript_batches b").fetchone()
    assert largest is not None
    assert largest[0] < 2000  # bytes, of 538 entries
    assert count(conn, "transcript_entries") == 500 + 19 * 2


def test_an_append_tried_again_after_an_unknown_commit_adds_nothing(conn: Connection):
    batch = [{"type": "mode"}, *said("a", 1), {"type": "mode"}]
    append(conn, "s", batch)
    assert append(conn, "s", batch, again=True) == 0
    assert transcripts.load(conn, P, "s") == batch


def test_an_append_tried_again_after_a_failed_commit_adds_all(conn: Connection):
    append(conn, "s", [{"type": "mode"}])
    assert append(conn, "s", [{"type": "mode"}, {"type": "mode"}], again=True) == 2


def test_equal_batches_without_uuids_that_are_meant_as_two_are_two(conn: Connection):
    append(conn, "s", [{"type": "mode"}])
    append(conn, "s", [{"type": "mode"}])
    assert transcripts.load(conn, P, "s") == [{"type": "mode"}] * 2


@pytest.mark.parametrize(
    "damage",
    [
        "delete from transcript_entries where id = (select max(id) from transcript_entries)",
        "delete from transcript_entries",
        "delete from transcript_batches",
        "delete from transcript_batches where id = (select max(id) from transcript_batches)",
        "truncate transcript_entries",
        "truncate transcript_batches",
        "update transcript_entries set body = 'garbage'",
        "update transcript_batches set overlay = 'garbage'",
    ],
)
def test_a_damaged_session_is_noticed_and_its_fingerprint_has_changed(
    conn: Connection, damage: LiteralString
):
    append(conn, "s", said("a", 3))
    append(conn, "s", said("b", 3))
    before = transcripts.fingerprint(conn, P, "s")

    conn.execute(damage)

    with pytest.raises(TranscriptDamaged):
        transcripts.load(conn, P, "s")
    assert transcripts.fingerprint(conn, P, "s") not in (before, None)


@pytest.mark.parametrize("how", ["delete from", "truncate"])
def test_a_session_whose_row_is_gone_is_gone(conn: Connection, how: LiteralString):
    append(conn, "s", said("a", 3))
    conn.execute(how + " transcript_sessions")
    assert transcripts.load(conn, P, "s") is None
    assert transcripts.fingerprint(conn, P, "s") is None
    assert not transcripts.exists(conn, P, "s")


def test_a_fingerprint_changes_with_the_session_and_with_no_other(conn: Connection):
    append(conn, "s", said("a", 1))
    append(conn, "other", said("b", 1))
    before = transcripts.fingerprint(conn, P, "s")
    append(conn, "other", said("c", 1))
    append(conn, "s", said("a", 1))  # all of it known
    append(conn, "s", said("a", 1), project="another")
    assert transcripts.fingerprint(conn, P, "s") == before

    append(conn, "s", said("d", 1), subpath="subagents/agent-1")
    with_agent = transcripts.fingerprint(conn, P, "s")
    append(conn, "s", said("e", 1))
    assert len({before, with_agent, transcripts.fingerprint(conn, P, "s")}) == 3


def test_a_session_made_anew_under_the_same_id_has_another_fingerprint(conn: Connection):
    append(conn, "s", said("a", 1))
    before = transcripts.fingerprint(conn, P, "s")
    listings.delete(conn, P, "s")
    append(conn, "s", said("b", 1))
    assert transcripts.fingerprint(conn, P, "s") != before


def test_deleting_a_session_leaves_what_others_share(conn: Connection):
    history = said("a", 5)
    append(conn, "parent", history)
    append(conn, "parent", said("agent", 2), subpath="subagents/agent-1")
    append(conn, "child", forked(history, "child"))

    assert listings.delete(conn, P, "parent") == 2
    assert listings.sweep_entries(conn, P) == 2  # the sub-agent's alone
    assert transcripts.load(conn, P, "child") == forked(history, "child")
    assert listings.delete(conn, P, "child") == 1
    assert listings.sweep_entries(conn, P, limit=3) == 3
    assert listings.sweep_entries(conn, P, limit=3) == 2
    assert [
        count(conn, f"transcript_{name}") for name in ("entries", "batches", "sessions")
    ] == [
        0,
        0,
        0,
    ]


def test_a_sweep_touches_no_other_project(conn: Connection):
    append(conn, "s", said("a", 2), project="another")
    assert listings.sweep_entries(conn, P) == 0
    assert transcripts.load(conn, "another", "s") == said("a", 2)


def test_only_what_no_head_and_no_version_names_is_unreachable(conn: Connection):
    for session in ("head", "version", "left", "older"):
        append(conn, session, said(session, 1))
    append(conn, "head", said("of a stranger", 1), project="another")
    conn.execute("update transcript_sessions set updated_at = now() - interval '2 days'")
    conn.execute(
        "update transcript_sessions set updated_at = updated_at - interval '1 day'"
        " where session_id = 'older'"
    )
    append(conn, "running", said("now", 1))
    conn.execute(
        "insert into projects (project_id, user_id, last_ai_session_id) values (%s, 'u', 'head')",
        (P,),
    )
    conn.execute(
        "insert into project_versions (version_id, project_id, ai_session_id)"
        " values ('v', %s, 'version')",
        (P,),
    )
    found = listings.unreachable(conn, [P, "another"], idle=timedelta(days=1))
    assert found[0] == (P, "older")
    assert sorted(found[1:]) == [("another", "head"), (P, "left")]


def test_two_forks_of_one_parent_appended_at_once_are_both_whole(conn: Connection, dsn: str):
    history, shared = said("a", 200), said("both write this", 200)
    append(conn, "parent", history)
    together = threading.Barrier(2)

    def fork(child: str, new: list[Entry]) -> list[Entry]:
        with psycopg.connect(dsn, autocommit=True) as mine:
            written = forked(history, child) + new
            together.wait(10)
            for begin in range(0, len(written), 40):
                append(mine, child, written[begin : begin + 40])
            return written

    with ThreadPoolExecutor() as threads:
        one = threads.submit(fork, "one", shared)
        two = threads.submit(fork, "two", shared[::-1])  # the order that would deadlock
    assert transcripts.load(conn, P, "one") == one.result()
    assert transcripts.load(conn, P, "two") == two.result()
    assert count(conn, "transcript_entries") == 400


def test_a_sweep_leaves_a_body_that_an_append_is_taking_up_again(conn: Connection, dsn: str):
    append(conn, "old", said("a", 3))
    listings.delete(conn, P, "old")
    with psycopg.connect(dsn) as writer, ThreadPoolExecutor() as threads:
        appends.append(writer, P, "new", said("a", 3))
        swept = threads.submit(lambda: in_own_transaction(dsn, listings.sweep_entries))
        wait_until(lambda: waiters(conn) == 1, description="the sweep waits for the append")
        writer.commit()
        assert swept.result(10) == 0
    assert transcripts.load(conn, P, "new") == said("a", 3)


def test_an_append_stores_again_what_a_sweep_is_taking_away(conn: Connection, dsn: str):
    append(conn, "old", said("a", 3))
    listings.delete(conn, P, "old")
    with psycopg.connect(dsn) as sweeper, ThreadPoolExecutor() as threads:
        assert listings.sweep_entries(sweeper, P) == 3
        appended = threads.submit(
            lambda: in_own_transaction(dsn, lambda c, _: append(c, "new", said("a", 3)))
        )
        wait_until(lambda: waiters(conn) == 1, description="the append waits for the sweep")
        sweeper.commit()
        assert appended.result(10) == 3
    assert transcripts.load(conn, P, "new") == said("a", 3)


def test_a_writer_that_was_cut_off_in_mid_pipeline_lets_go(
    conn: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(appends, "WRITER_LASTS", "500ms")
    with psycopg.connect(dsn, autocommit=True) as writer, ThreadPoolExecutor() as threads:
        if writer.info.server_version < 170000:
            pytest.skip("Postgres before 17 has no time-out for this")

        def stop_halfway() -> None:
            with writer.pipeline():
                appends.lock(writer, P, lasts=appends.WRITER_LASTS)
                writer.execute("select 1").fetchone()  # done: Postgres waits for what follows
                appended = threads.submit(
                    lambda: in_own_transaction(dsn, lambda c, _: append(c, "new", said("a", 3)))
                )
                wait_until(lambda: waiters(conn) == 1, description="the append to wait")
                assert appended.result(10) == 3
                writer.execute("select 1").fetchone()

        with pytest.raises(psycopg.OperationalError):
            stop_halfway()


def append(
    conn: Connection, session: str, entries: list[Entry], *, project: str = P, **more: Any
) -> int:
    with conn.transaction():
        return appends.append(conn, project, session, entries, **more)


def said(name: str, number: int) -> list[Entry]:
    """Entries that are equal whenever they are asked for by the same name."""
    return [
        {"type": "user", "uuid": f"{name} {n}", "sessionId": name, "message": f"{name}: {n} \0"}
        for n in range(number)
    ]


def forked(entries: list[Entry], child: str) -> list[Entry]:
    """What the CLI makes of a history when it forks: other volatile fields, another order."""
    return [
        {name: one[name] for name in reversed(list(one))}
        | {"sessionId": child, "promptId": child, "requestSessionId": one.get("sessionId")}
        for one in entries
    ]


def as_json(one: Entry) -> Entry:
    """As it comes off the CLI's line: a pair of surrogates is one character."""
    return json.loads(json.dumps(one))


def exactly(entries: Any) -> list[str]:
    """To compare by: Python holds 1, 1.0 and True to be equal."""
    return [json.dumps(one, sort_keys=True) for one in entries]


def once_per_uuid(entries: list[Entry]) -> list[Entry]:
    seen, kept = set[str](), list[Entry]()
    for one in entries:
        if (uuid := one.get("uuid")) is None or uuid not in seen:
            kept.append(one)
        if uuid is not None:
            seen.add(uuid)
    return kept


def count(conn: Connection, table: str) -> int:
    row = conn.execute(f"select count(*) from {table}".encode()).fetchone()
    assert row is not None
    return row[0]


def waiters(conn: Connection) -> int:
    row = conn.execute(
        "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        " and database = (select oid from pg_database where datname = current_database())"
    ).fetchone()
    assert row is not None
    return row[0]


def in_own_transaction(dsn: str, work: Callable[[Connection, str], int]) -> int:
    with psycopg.connect(dsn) as conn:
        return work(conn, P)
