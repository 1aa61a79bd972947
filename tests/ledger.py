"""Moves of the ledger as tests make them: ask, claim, begin a turn, commit it.

The real statements on a real Postgres, with no agent: a turn is what it is said to be.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from threading import Barrier
from typing import Any, LiteralString, TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection, Cursor, sql
from psycopg.types.json import Jsonb

from db.core.events import Event, Written
from db.jobs import attempts, endings, outbox
from db.jobs.attempts import Claimed, Runner
from db.jobs.endings import End
from db.jobs.lanes import Message, Next
from db.sessions import commits, turns
from db.sessions.commits import Advance, Moved
from db.sessions.turns import Try

RUNNER = Runner("worker", "host", "boot", 4711, 99, "credential")
LEASE = timedelta(seconds=30)
SOON = timedelta(seconds=2)
LONGEST = timedelta(minutes=5)
RESCUES = 3  # a job is set aside at the third

T = TypeVar("T")


def ask(conn: Connection[Any], kind: str = "build", project: str = "p", **more: Any) -> UUID:
    """Ask by SQL, as producers in other languages do."""
    given = {"kind": kind, "project": project, "user_id": "u"}
    if kind in ("build", "update", "chat_plan"):
        given["prompt"] = "make it"
    given |= {k: Jsonb(v) if isinstance(v, dict) else v for k, v in more.items()}
    named = [
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name))
        for name in given
    ]
    query = sql.SQL("select baton_enqueue({})").format(sql.SQL(", ").join(named))
    row = conn.execute(query, given).fetchone()
    assert row
    return row[0]


def webhook(
    conn: Connection[Any],
    chain: UUID,
    *,
    state: str = "waiting",
    error: str | None = None,
    ago: timedelta = timedelta(0),
) -> None:
    """Somebody is to be told of the chain, since then; tried in vain if there is an error."""
    conn.execute(
        """
        insert into webhooks (chain_id, project_id, user_id, url, host, state, error, since,
                              try_at, ended_at)
        select id, project_id, user_id, 'https://hooks.example/x', 'hooks.example', %(state)s,
               %(error)s, now() - %(ago)s,
               now() - %(ago)s, case %(state)s when 'given_up' then now() - %(ago)s end
          from jobs where id = %(chain)s
        """,
        {"chain": chain, "state": state, "error": error, "ago": ago},
    )


def claim(conn: Connection, job_id: UUID, *, runner: Runner = RUNNER) -> Claimed | None:
    return attempts.claim(
        conn, job_id, attempt=uuid4(), runner=runner, lease=LEASE, limit=RESCUES
    )


def begun(conn: Connection, kind: str = "build", project: str = "p", **more: Any) -> Claimed:
    """A job that was asked for and runs."""
    job = claim(conn, ask(conn, kind, project, **more))
    assert job
    return job


def turn(
    conn: Connection, job: Claimed, step: str = "build", parent: str | None = None, **more: Any
) -> str:
    """Begin a run of the agent; returns the session it is to make."""
    minted = str(uuid4())
    parent = parent or job.head
    tried = [Try(parent, "trying")]
    assert turns.begin(conn, job, step=step, parent=parent, minted=minted, tries=tried, **more)
    return minted


def advance(
    conn: Connection,
    job: Claimed,
    minted: str,
    *,
    following: Next | None = None,
    **more: Any,
) -> Moved | None:
    """Commit the turn that made `minted`, on a fork of the head as the job has it."""
    to: dict[str, Any] = {
        "step": job.kind,
        "old": job.head,
        "new": minted,
        "parent": job.head,
        "minted": minted,
        "relation": "forked" if job.head else "fresh",
        "source": "update" if job.head else "build",
    }
    told = [Event("session.moved", job.id, {"session": minted})]
    if more.get("final", True):
        told.append(Event("job.done", job.id, {}))
    if following:
        told.append(Event("job.queued", following.id, {}))
    return commits.advance(
        conn,
        job,
        Advance(**(to | more)),
        told=told,
        following=following,
        publish_after=SOON,
    )


def commit(conn: Connection, job: Claimed, **more: Any) -> Claimed:
    """A whole turn, begun and committed; the job as its runner then has it."""
    minted = turn(conn, job, more.get("step", job.kind))
    moved = advance(conn, job, minted, **more)
    assert moved
    return replace(job, head=more.get("new", minted))


def built(conn: Connection, project: str = "p", version: str = "v1", **more: Any) -> Claimed:
    """A build that is done, with its version, and nothing after it."""
    return commit(
        conn, begun(conn, project=project), version_id=version, new_version=True, **more
    )


def next_job(kind: str = "metadata") -> Next:
    return Next(uuid4(), kind, {"asked": "build"})


def finish(
    conn: Connection, job: Claimed, state: str = "done", following: Next | None = None
) -> tuple[list[Written], list[Message]] | None:
    told = [Event(f"job.{state}", job.id, {})]
    if following:
        told.append(Event("job.queued", following.id, {}))
    return endings.finish(conn, job, End(state=state, following=following), told, SOON)


def published(
    conn: Connection, room: int = 10, *, user_slots: int = 0, longest: timedelta = LONGEST
) -> list[UUID]:
    """What a relay publishes that looks now and has so much room."""
    while outbox.look(conn):
        pass
    sent = outbox.publish(conn, room=room, user_slots=user_slots, pause=SOON, longest=longest)
    return [message.id for message in sent]


def one(conn: Connection[Any], query: LiteralString, *params: Any) -> Any:
    """The first column of the only row."""
    (row,) = conn.execute(query, params).fetchall()
    return row[0]


def job_row(conn: Connection, job_id: UUID, columns: LiteralString = "state") -> Any:
    (row,) = conn.execute(f"select {columns} from jobs where id = %s", (job_id,)).fetchall()
    return row[0] if len(row) == 1 else row


def types(conn: Connection, project: str = "p") -> list[str]:
    """The types of a project's events, in order."""
    rows = conn.execute(
        "select type from events where project_id = %s order by seq", (project,)
    )
    return [kind for (kind,) in rows]


WRITTEN = (
    *("projects", "project_versions", "session_transitions", "project_ai_session_metrics"),
    *("project_chat_log_minimal", "chat_plan_sessions", "jobs", "events", "turns"),
    *("session_resume_attempts", "limits"),
)


def contents(conn: Connection) -> dict[str, list[Any]]:
    """All that the ledger holds, to see that nothing was written."""
    return {
        table: conn.execute(
            sql.SQL("select t::text from {} t order by 1").format(sql.Identifier(table))
        ).fetchall()
        for table in WRITTEN
    }


def at_once(
    dsn: str, work: Callable[[psycopg.Connection], T], times: int = 8
) -> list[T | psycopg.Error]:
    """Do the work on that many connections at the same moment; errors are answers too."""
    gate = Barrier(times)

    def run(_: int) -> T | psycopg.Error:
        with psycopg.connect(dsn, autocommit=True) as own:
            own.execute("select 1")
            gate.wait(10)
            try:
                return work(own)
            except psycopg.Error as exc:
                return exc

    with ThreadPoolExecutor(times) as threads:
        return list(threads.map(run, range(times)))


def blocked(conn: Connection, count: int = 1) -> bool:
    """Whether so many connections of this database wait for a lock."""
    waiting = one(
        conn,
        """
        select count(*) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock'
        """,
    )
    return waiting >= count


def sent(conn: Connection) -> list[object]:
    """The statements that the connection sends from now on."""
    statements = list[object]()

    class Noting(Cursor[Any]):
        def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            statements.append(query)
            return super().execute(query, *args, **kwargs)

    conn.cursor_factory = Noting
    return statements
