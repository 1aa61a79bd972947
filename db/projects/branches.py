"""Branches: lines of work beside a project's main line, each with a head of its own.

main    A ── B ── C ──────────── T        T takes the branch's place in the main line,
              \\                /         if the head is still what was expected
branch         D ── E ── promoted, or dropped

Whoever asks for a job of a branch holds its row until that is committed (baton_lane); whoever
ends it takes the row alone, and then looks for open jobs. So no job is left without its branch.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, LiteralString

import psycopg
from psycopg import Connection, errors
from psycopg.rows import class_row

from db.core import events
from db.core.codes import refusal
from db.core.events import Event, Written
from db.projects import heads
from db.projects.heads import HeadHeld, Move, hold_head

PATIENCE = timedelta(seconds=1)  # for commits, and producers that have asked for a job of it
HASTE = timedelta(milliseconds=100)  # where it can be tried again later


@dataclass(frozen=True, slots=True)
class Branch:
    """One branch: where it began, its newest session, and the git commit of its files."""

    lane: str
    user_id: str
    from_session: str
    head: str
    tree: str | None
    created_at: datetime
    updated_at: datetime
    promoted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A branch that is gone, and what was told of it."""

    project_id: str
    told: list[Written]


COLUMNS: LiteralString = (
    "lane, user_id, from_session, head, tree, created_at, updated_at, promoted_at"
)


def of_project(conn: Connection, project_id: str) -> list[Branch]:
    """The project's branches, the oldest first."""
    with conn.cursor(row_factory=class_row(Branch)) as cur:
        return cur.execute(
            "select "
            + COLUMNS
            + " from branches where project_id = %s order by created_at, lane",
            (project_id,),
        ).fetchall()


def promote(conn: Connection, project_id: str, lane: str, *, onto: str | None = None) -> Branch:
    """Make a branch's head the project's, if that is still `onto` (else: where the branch began).

    Raises HeadHeld, with nothing changed, when the head is another one, either line has
    work under way or is being asked for some, or the branch is unknown, promoted, another
    user's than the project, or without a turn of its own.
    """
    with _alone(conn, project_id, lane) as branch:
        head = hold_head(conn, project_id)
        _check_head(conn, project_id, branch)
        _check_idle(conn, project_id, lane)
        expected = onto or branch.from_session
        if head != expected:
            raise HeadHeld(
                f"The main line has moved on to {head}: promote onto that one if the branch"
                " is to take its place."
            )
        version = lane if branch.tree else None
        if version:  # a product may have columns in its versions that only the product can fill
            conn.execute("select baton_check_version('build', %s, %s)", (project_id, version))
        conn.execute(
            PROMOTE,
            {
                "project": project_id,
                "lane": lane,
                "new": branch.head,
                "version": version,
                "tree": branch.tree,
            },
        )
        to = Move(
            old=head,
            new=branch.head,
            parent=branch.from_session,
            source="fork",
            reason="promoted",
            version_id=version,
            tree=branch.tree,
        )
        told = {
            "old": head,
            "session": branch.head,
            "parent": branch.from_session,
            "source": "fork",
            "branch": lane,
            "version": version,
        }
        heads.move(conn, project_id, to, told)
    return branch


def drop(conn: Connection, project_id: str, lane: str, *, why: str = "operator") -> Dropped:
    """End a branch for good, as an operator, or a race: its sessions are not resumed any more.

    What its turns cost stays. Raises HeadHeld, with nothing changed, when the branch is
    unknown or promoted, or has an open job or is being asked for one.
    """
    with _alone(conn, project_id, lane) as branch:
        _check_idle(conn, project_id, lane)
        return _drop(conn, project_id, branch, why=why)


def drop_unused(
    conn: Connection, unused: timedelta, *, limit: int, after: list[Any] | None = None
) -> tuple[list[Dropped], list[Any] | None]:
    """End those of the next `limit` branches that had no turn and no job for so long.

    The next are those behind the key `after`. Returns with them the key of the last one that
    was looked at; None when there are no more.
    """
    since, project_id, lane = after or ("-infinity", "", "")
    found = conn.execute(
        """
        select b.project_id, b.lane, b.updated_at::text,"""
        + UNUSED
        + """
          from branches b
         where b.promoted_at is null and b.updated_at < clock_timestamp() - %(unused)s::interval
           and b.updated_at >= %(since)s::timestamptz  -- for the index
           and (b.updated_at, b.project_id, b.lane)
               > (%(since)s::timestamptz, %(project)s::text, %(lane)s::text)
         order by b.updated_at, b.project_id, b.lane limit %(limit)s
        """,
        {"unused": unused, "since": since, "project": project_id, "lane": lane, "limit": limit},
    ).fetchall()
    since_when = {"unused": unused}
    dropped = [_drop_if(conn, p, at, UNUSED, since_when) for p, at, _, free in found if free]
    last = [found[-1][2], *found[-1][:2]] if len(found) == limit else None
    return [each for each in dropped if each], last


# Whether the branch `b` is open and has had nothing to do for so long.
UNUSED: LiteralString = """
    b.promoted_at is null and b.updated_at < clock_timestamp() - %(unused)s
    and not exists (select from jobs j
                     where j.project_id = b.project_id and j.lane = b.lane and j.lane <> 'main'
                       and (j.finished_at is null
                            or j.finished_at >= clock_timestamp() - %(unused)s))"""


def drop_lost(conn: Connection, until: float = float("inf")) -> list[Dropped]:
    """End branches of races that are over, and that no race has ended: of those that were cancelled.
    One after the other, up to `until` (monotonic seconds)."""
    found = conn.execute(
        """
        select b.project_id, b.lane
          from jobs j join branches b on b.project_id = j.project_id and b.lane = j.lane
         where j.args ? 'racer' and j.finished_at > clock_timestamp() - interval '1 day'
           and """
        + LOST
        + " order by j.finished_at"
    ).fetchall()
    in_time = takewhile(lambda _: time.monotonic() < until, found)
    dropped = (_drop_if(conn, project, lane, LOST, {}, why="race") for project, lane in in_time)
    return [each for each in dropped if each]


# Whether the branch `b` was one of a race that is over, which needs it no more, and nobody took it up.
# What has passed stays where the race itself failed; and so does what it tells of as kept.
LOST: LiteralString = """
    b.promoted_at is null and exists (
        select from jobs l join jobs r on r.id = l.parent_id
         where l.project_id = b.project_id and l.lane = b.lane and l.args ? 'racer'
           and l.finished_at is not null and r.finished_at is not null
           and (r.state = 'cancelled'
                or l.state <> 'done' and r.error_class is distinct from 'not_promoted'))
    and not exists (select from jobs o
                     where o.project_id = b.project_id and o.lane = b.lane
                       and not (o.args ? 'racer' and o.finished_at is not null))"""


def _drop_if(
    conn: Connection,
    project_id: str,
    lane: str,
    free: LiteralString,
    given: dict[str, Any],
    *,
    why: str = "idle",
) -> Dropped | None:
    """None if somebody has come to use it since it was found `free`."""
    try:
        with _alone(conn, project_id, lane, HASTE) as branch:
            found = conn.execute(
                "select from branches b where b.project_id = %(project)s and b.lane = %(lane)s and "
                + free,
                {"project": project_id, "lane": lane, **given},
            )
            return _drop(conn, project_id, branch, why=why) if found.rowcount else None
    except HeadHeld:
        return None


@contextmanager
def _alone(
    conn: Connection, project_id: str, lane: str, patience: timedelta = PATIENCE
) -> Generator[Branch]:
    """In a transaction: the branch, of which nobody else can ask for a job until it ends.

    Raises HeadHeld if it is unknown or promoted, or somebody holds what is to be changed.
    """
    try:
        with conn.transaction():
            wait = f"{patience / timedelta(milliseconds=1):.0f}ms"
            conn.execute("select set_config('lock_timeout', %s, true)", (wait,))
            conn.execute("select baton_refuse_deleted(%s)", (project_id,))
            yield _take(conn, project_id, lane)
    except errors.LockNotAvailable as exc:
        raise HeadHeld(
            f"A transaction that is still open uses branch {lane} or its project, most likely"
            " by having asked for a job: end it, and ask again."
        ) from exc
    except psycopg.DatabaseError as exc:
        if not (why := refusal(exc)):
            raise
        raise HeadHeld(why.sentence) from exc


def _take(conn: Connection, project_id: str, lane: str) -> Branch:
    with conn.cursor(row_factory=class_row(Branch)) as cur:
        found = cur.execute(
            "select "
            + COLUMNS
            + " from branches where project_id = %s and lane = %s for update",
            (project_id, lane),
        ).fetchone()
    if found is None:
        raise HeadHeld(f"The project has no branch {lane}: see `baton branches {project_id}`.")
    if found.promoted_at:
        raise HeadHeld("That branch is promoted already.")
    return found


def _check_head(conn: Connection, project_id: str, branch: Branch) -> None:
    if branch.head == branch.from_session:
        raise HeadHeld("That branch has no turn of its own yet: wait for its job.")
    known = conn.execute(
        """
        select m.is_resumable, coalesce(m.user_id = p.user_id, true)
          from project_ai_session_metrics m, projects p
         where m.session_id = %s and p.project_id = %s
        """,
        (branch.head, project_id),
    ).fetchone()
    if known is None or not known[0]:
        raise HeadHeld("The branch's session cannot be resumed: go on from another one.")
    if not known[1]:
        raise HeadHeld(
            "That branch is another user's than the project: ask for its work anew, from a"
            " session of `baton chain`."
        )


def _check_idle(conn: Connection, project_id: str, lane: str) -> None:
    busy = conn.execute(
        "select id from jobs where project_id = %s and lane = %s and finished_at is null limit 1",
        (project_id, lane),
    ).fetchone()
    if busy:
        raise HeadHeld(f"Job {busy[0]} of the branch is open: wait for it, or cancel it first.")


def _drop(conn: Connection, project_id: str, branch: Branch, *, why: str) -> Dropped:
    conn.execute(
        "delete from branches where project_id = %s and lane = %s", (project_id, branch.lane)
    )
    conn.execute(  # of branches that are gone by now, what nothing else needs
        """
        update project_ai_session_metrics m set is_resumable = false, status = 'expired'
         where m.project_id = %(project)s and m.lane <> 'main' and m.is_resumable
           and not exists (select from branches b
                            where b.project_id = m.project_id and b.lane = m.lane)
           and not exists (select from sessions_kept k
                            where k.project_id = m.project_id and k.session_id = m.session_id)
        """,
        {"project": project_id},
    )
    body = {"branch": branch.lane, "head": branch.head, "why": why}
    told = events.append(conn, project_id, [Event("branch.dropped", None, body)])
    return Dropped(project_id, told)


# The branch ends, and its sessions become the main line's.
JOIN: LiteralString = """
    with ended_branch as (
        update branches set promoted_at = now() where project_id = %(project)s and lane = %(lane)s
    ), its_sessions as (
        update project_ai_session_metrics
           set lane = 'main', branch = lane, status = 'disconnected'
         where project_id = %(project)s and lane = %(lane)s
    )"""
PROMOTE: LiteralString = (
    JOIN
    + """
    insert into project_versions (project_id, version_id, tree, ai_session_id,
                                  ai_session_created_at, ai_session_last_used_at)
    select %(project)s, %(version)s, %(tree)s, %(new)s, now(), now()
     where %(version)s::text is not null"""
)
