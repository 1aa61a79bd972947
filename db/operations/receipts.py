"""Receipts of deletions: how much of what went, and when.

An open one says of whom it is and what is still to be removed, so that a deletion that
broke off is gone on with; its projects take no jobs. A closed one names nobody
(docs/decisions/0007).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb


@dataclass(frozen=True, slots=True)
class Receipt:
    """One deletion. `todo` (None once it is closed) has `id`, of whom it is, and where files
    and keys may be: `projects` (id → workspace), `owners` (id → user), `chains`, `turns` (minted ids), and, in projects
    of others, `branches` (project and lane) and `attempts` (project and attempt) of branches."""

    id: UUID
    what: str  # project or user
    host: str
    began_at: datetime
    ended_at: datetime | None
    rows: dict[str, int]  # that were deleted, by table
    files: int
    keys: int
    remote_refs: int
    todo: dict[str, Any] | None


COLUMNS: LiteralString = (
    "id, what, host, began_at, ended_at, rows, files, keys, remote_refs, todo"
)
# Of the receipt's own id too: nobody can tell from two of them that they are of one subject.
DIGEST: LiteralString = """
    encode(sha256(convert_to(id::text || ' ' || %(what)s || ' ' || %(subject)s, 'UTF8')), 'hex')"""


def newest(
    conn: Connection, what: str, subject: str, *, is_open: bool = False
) -> Receipt | None:
    """The newest receipt of this project or user, or the one that is still open."""
    with conn.cursor(row_factory=class_row(Receipt)) as cur:
        return cur.execute(
            "select "
            + COLUMNS
            + " from deletions where what = %(what)s and digest ="
            + DIGEST
            + " and (ended_at is null or not %(is_open)s) order by began_at desc limit 1",
            {"what": what, "subject": subject, "is_open": is_open},
        ).fetchone()


def unfinished(conn: Connection) -> list[tuple[str, str, datetime]]:
    """Deletions that broke off, or are under way: what, of whom, since when."""
    return conn.execute(
        """
        select what, todo ->> 'id', began_at from deletions
         where ended_at is null order by began_at
        """
    ).fetchall()


def begin(conn: Connection, what: str, subject: str, *, host: str) -> Receipt:
    """Open a receipt, or go on with the one that was left open."""
    if before := newest(conn, what, subject, is_open=True):
        return before
    todo: dict[str, Any] = {
        "id": subject,
        "projects": {},
        "chains": [],
        "turns": [],
        "branches": [],
        "attempts": [],
    }
    with conn.cursor(row_factory=class_row(Receipt)) as cur:
        begun = cur.execute(
            "insert into deletions (id, what, host, todo, digest)"
            " select id, %(what)s, %(host)s, %(todo)s,"
            + DIGEST
            + " from (select gen_random_uuid() as id) new returning "
            + COLUMNS,
            {"what": what, "subject": subject, "host": host, "todo": Jsonb(todo)},
        ).fetchone()
    assert begun
    return begun


def get(conn: Connection, receipt_id: UUID) -> Receipt:
    """The receipt as it stands. Raises LookupError if it is gone."""
    with conn.cursor(row_factory=class_row(Receipt)) as cur:
        found = cur.execute(
            "select " + COLUMNS + " from deletions where id = %s", (receipt_id,)
        ).fetchone()
    if found is None:
        raise LookupError(f"There is no receipt {receipt_id}.")
    return found


def count(conn: Connection, receipt_id: UUID, gone: dict[str, int]) -> None:
    """Add rows that were deleted, by table."""
    conn.execute(
        """
        update deletions set rows = (
            select coalesce(jsonb_object_agg(name, n), '{}') from (
                select key as name, sum(value::bigint) as n from (
                    select * from jsonb_each_text(deletions.rows)
                    union all select * from jsonb_each_text(%s)) of_both
                 group by key) summed where n > 0)
         where id = %s
        """,
        (Jsonb(gone), receipt_id),
    )


def note_removed(
    conn: Connection, receipt_id: UUID, *, files: int = 0, keys: int = 0, remote_refs: int = 0
) -> None:
    """Add files, keys and refs on a server that were removed."""
    conn.execute(
        """
        update deletions set files = files + %s, keys = keys + %s,
                             remote_refs = remote_refs + %s where id = %s
        """,
        (files, keys, remote_refs, receipt_id),
    )


def close(conn: Connection, receipt_id: UUID) -> Receipt:
    """All is gone: forget of whom it was. Its projects' ids may be used anew from here on."""
    conn.execute(
        """
        update deletions set ended_at = clock_timestamp(), todo = null, projects = (
            select coalesce(array_agg(encode(sha256(convert_to(
                       deletions.id::text || ' project ' || gone, 'UTF8')), 'hex')), '{}')
              from jsonb_object_keys(todo -> 'projects') gone)
         where id = %s
        """,
        (receipt_id,),
    )
    return get(conn, receipt_id)


def deleted(conn: Connection, projects: Sequence[str]) -> dict[str, datetime]:
    """Which of these ids were of a project that was deleted, whole, and when the last was.

    Not those of which the projects went with a user before receipts noted that.
    """
    rows = conn.execute(
        """
        select given, max(d.ended_at)
          from unnest(%s::text[]) given
          join deletions d on d.ended_at is not null
               and encode(sha256(convert_to(d.id::text || ' project ' || given, 'UTF8')), 'hex')
                   = any (d.projects || d.digest)
         group by given
        """,
        (list(projects),),
    ).fetchall()
    return dict(rows)


def withdraw(conn: Connection, receipt_id: UUID) -> None:
    """If nothing was taken there is no receipt."""
    conn.execute(
        "delete from deletions where id = %s and rows = '{}' and todo -> 'projects' = '{}'",
        (receipt_id,),
    )
