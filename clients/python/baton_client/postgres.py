"""Asking in a transaction of your own: the job exists exactly when you commit.

`baton_enqueue` in Postgres judges and writes; the connection needs Baton's tables in its search_path.
"""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row, tuple_row
from psycopg.types.json import Jsonb

from baton_client.refused import CODES, Refused
from baton_client.requests import Ask
from baton_client.results import Asked

OPTIONS = (
    *("model", "max_turns", "budget", "workspace", "on_lost", "branch_from", "template"),
    *("callback_url", "check", "check_tries", "on_check_failed"),
    *("race", "race_by", "race_models", "race_seconds"),
)
ENQUEUE: LiteralString = """
    select baton_enqueue(
        kind => %(kind)s, project => %(project)s, user_id => %(user)s, prompt => %(prompt)s,
        version => %(version)s, key => %(key)s, busy => %(busy)s, priority => %(priority)s,
        run_at => %(run_at)s, previous_session_id => %(previous_session_id)s,
        error => %(error)s, options => %(options)s, id => %(id)s)"""
# Opens your transaction, if it is not open: what comes then is a savepoint in it, and commits nothing.
BEGIN: LiteralString = "select"
ASKED: LiteralString = "select id, chain_id as chain, state from jobs where id = %s"


def enqueue(conn: Connection[Any], ask: Ask, *, job_id: UUID | None = None) -> Asked:
    """Ask for a job. Raises Refused; your transaction goes on.

    With `job_id` the job has that id, and asking again under it changes nothing.
    """
    conn.execute(BEGIN)
    with _refusing(), conn.transaction(), conn.cursor(row_factory=tuple_row) as cur:
        made = cur.execute(ENQUEUE, _params(ask, job_id)).fetchone()
    with conn.cursor(row_factory=class_row(Asked)) as cur:
        found = cur.execute(ASKED, made).fetchone()
    assert found
    return found


async def enqueue_async(
    conn: AsyncConnection[Any], ask: Ask, *, job_id: UUID | None = None
) -> Asked:
    """As `enqueue`, for an async connection."""
    await conn.execute(BEGIN)
    with _refusing():
        async with conn.transaction(), conn.cursor(row_factory=tuple_row) as cur:
            made = await (await cur.execute(ENQUEUE, _params(ask, job_id))).fetchone()
    async with conn.cursor(row_factory=class_row(Asked)) as cur:
        found = await (await cur.execute(ASKED, made)).fetchone()
    assert found
    return found


def _params(ask: Ask, job_id: UUID | None) -> dict[str, Any]:
    given = ask.readable().model_dump()
    options = {name: given.pop(name) for name in OPTIONS}
    if options["budget"] is not None:
        options["budget"] = float(options["budget"])
    return {
        **given,
        "kind": ask.kind,
        "id": job_id,
        "options": Jsonb({k: v for k, v in options.items() if v is not None}),
    }


@contextmanager
def _refusing() -> Generator[None]:
    try:
        yield
    except (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable) as exc:
        raise Refused(
            "not_migrated",
            "This database does not have Baton's tables: run `baton migrate` first.",
        ) from exc
    except psycopg.Error as exc:
        if exc.sqlstate and exc.sqlstate.startswith("BA"):
            again_at = exc.diag.message_detail
            raise Refused(
                CODES.get(exc.sqlstate, "refused"),
                exc.diag.message_primary or "The request was refused.",
                exc.diag.column_name or None,
                datetime.fromisoformat(again_at) if again_at else None,
            ) from exc
        raise
