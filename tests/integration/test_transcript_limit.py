"""A limit on what a project stores: what is oldest goes, what is needed never does."""

import os
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import redis
from psycopg import Connection

from db.core.events import since
from db.operations import upkeep
from db.projects import projects
from db.projects.heads import HeadHeld
from db.sessions import registry
from db.transcripts import appends, listings, quota, transcripts
from db.transcripts.listings import Held
from tasks.upkeep import prune_to_size
from tests.conftest import Configure
from tests.invariants import violations
from tests.ledger import begun, built, commit, finish, one, turn
from worker.live import checkpoints
from worker.session import ladder

DAY = timedelta(days=1)
SIZE = 10_000  # bytes that an entry's body takes at least, compressed


def entry() -> Any:
    """One that no compression makes smaller than SIZE."""
    return {
        "type": "user",
        "uuid": str(uuid4()),
        "message": {"content": os.urandom(SIZE).hex()},
    }


def write(
    conn: Connection, session: str | None, entries: list[Any], *, project: str = "p"
) -> str:
    assert session
    with conn.transaction():
        appends.append(conn, project, session, entries)
    return session


def kept(conn: Connection) -> set[str]:
    return {name for (name,) in conn.execute("select session_id from transcript_sessions")}


def held(conn: Connection) -> list[Held]:
    return listings.projects(conn, after="", limit=100)


def resumable(conn: Connection, session: str) -> bool:
    return one(
        conn,
        "select is_resumable from project_ai_session_metrics where session_id = %s",
        session,
    )


def apart(conn: Connection, count: int) -> list[str]:
    """A project of that many versions, whose sessions share nothing; the last is the head."""
    return [write(conn, built(conn, version=f"v{n}").head, [entry()]) for n in range(count)]


def test_the_oldest_go_until_the_project_is_below_its_limit(conn: Connection):
    first, second, third, head = apart(conn, 4)
    (size,) = quota.measured(conn, ["p"])
    assert 4 * SIZE < size.stored < size.bytes
    (done,) = quota.prune(conn, size.stored - 1, ["p"])
    assert (done.sessions, kept(conn)) == (1, {second, third, head})
    assert done.stored == quota.measured(conn, ["p"])[0].stored
    assert not resumable(conn, first)
    assert resumable(conn, second)
    assert quota.prune(conn, done.stored, ["p"]) == []
    assert violations(conn) == []


def test_the_head_and_the_newest_version_stay_whatever_they_take(conn: Connection):
    *old, newest = apart(conn, 3)
    chat = commit(conn, begun(conn, "chat_plan"), source="chat_plan").head
    head = write(conn, chat, [entry()])
    (done,) = quota.prune(conn, 1, ["p"])
    assert (done.sessions, kept(conn)) == (len(old), {newest, head})
    assert done.stored > 1, "over its limit, and that is said"
    assert all(transcripts.exists(conn, "p", session) for session in (newest, head))


def test_a_session_that_repeats_what_is_kept_frees_nothing_and_stays(conn: Connection):
    shared, own = [entry(), entry()], entry()
    first = write(conn, built(conn, version="v1").head, shared)
    aside = write(conn, built(conn, version="v2").head, [own])
    head = write(conn, built(conn, version="v3").head, [*shared, entry()])
    quota.prune(conn, 1, ["p"])
    assert kept(conn) == {first, head}
    assert not resumable(conn, aside)
    assert transcripts.load(conn, "p", first) == shared


def test_what_an_open_job_works_on_stays(conn: Connection):
    parent, head = apart(conn, 2)
    job = begun(conn)
    minted = write(conn, turn(conn, job, parent=parent), [entry()])
    quota.prune(conn, 1, ["p"])
    assert kept(conn) == {parent, head, minted}
    finish(conn, job, "failed")
    quota.prune(conn, 1, ["p"])
    assert kept(conn) == {head}


def test_a_session_that_was_pruned_is_passed_over_with_a_reason(
    conn: Connection, configure: Configure
):
    old, head = apart(conn, 2)
    quota.prune(conn, 1, ["p"])
    job = begun(conn, version="v0", previous_session_id=old)
    choice = ladder.choose(conn, job, barred={head: "killed"})
    assert choice.parent is None
    assert {(t.session_id, t.reason) for t in choice.tries} >= {(old, "not_resumable")}
    with pytest.raises(HeadHeld, match="is running"):
        projects.rewind(conn, "p", old)
    finish(conn, job, "failed")
    with pytest.raises(HeadHeld, match="cannot be resumed"):
        projects.rewind(conn, "p", old)


def test_people_are_told_of_sessions_that_they_may_miss_and_of_no_others(
    conn: Connection, redis_url: str, configure: Configure
):
    configure(REDIS_URL=redis_url, BATON_PROJECT_BYTES="1")
    checkpoints.client.cache_clear()
    first, second, _head = apart(conn, 3)
    write(conn, "of-a-turn-that-failed", [entry()])
    write(conn, "stray", [entry()], project="no-heads")
    before = one(conn, "select event_seq from projects")
    assert prune_to_size(conn, held(conn)) == (4, 1)
    (told,) = since(conn, "p", before)
    assert told.type == "sessions.pruned"
    assert (told.body["count"], told.body["sessions"]) == (2, [second, first])
    assert (told.body["limit_bytes"], told.body["stored_bytes"] > SIZE) == (1, True)
    with redis.Redis.from_url(f"{redis_url.rpartition('/')[0]}/2") as client:
        assert client.exists("events:p") == 1
    assert prune_to_size(conn, held(conn)) == (0, 1)
    assert since(conn, "p", told.seq) == [], "told once"
    assert violations(conn) == []


def test_without_a_limit_nothing_is_measured_or_pruned(conn: Connection):
    apart(conn, 2)
    assert prune_to_size(conn, held(conn)) == (0, 0)
    assert len(kept(conn)) == 2


def test_partial_sessions_and_those_of_failed_turns_go_after_their_time(conn: Connection):
    """A dead attempt's session is in the registry without having been a head; a failed
    turn's is in no table but the turns. Neither stays for ever, nor goes too early."""
    head = write(conn, built(conn).head, [entry()])
    job = begun(conn)
    partial, failed = (write(conn, turn(conn, job), [entry()]) for _ in range(2))
    registry.adopt(conn, job, partial, parent=job.head, raw_cost_usd=0)
    finish(conn, job, "failed")
    assert upkeep.prune_transcripts(conn, 7 * DAY) == 0
    conn.execute("update transcript_sessions set updated_at = now() - interval '8 days'")
    assert upkeep.prune_transcripts(conn, 7 * DAY) == 2
    assert kept(conn) == {head}
    assert failed not in kept(conn)
    assert not resumable(conn, partial)
    assert one(conn, "select count(*) from transcript_entries") == 1
    assert violations(conn) == []
