"""/v1/projects/{p}: the head and open work, moves, jobs, what was said, what a version changed."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Annotated, Any, LiteralString, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Query, Response
from psycopg import AsyncConnection, Connection
from psycopg.rows import dict_row

from db.core.pool import connection
from db.jobs import listing
from db.jobs.listing import Place, Wanted
from db.projects import projects
from gateway.http import forms
from gateway.http.callers import Here, Who, check_project, name_fits
from gateway.http.patches import patch_of
from gateway.http.routes import got
from gateway.problems import Problem, not_found
from worker.failures.failed import Failed
from worker.reports.jobs import listed
from worker.workspace.diff import diff as made

router = APIRouter(prefix="/v1/projects/{project}", tags=["projects"])
MOST = 200
Limit = Annotated[int, Query(ge=1, le=MOST)]
Cursor = Annotated[str | None, Query(max_length=500)]
Row = dict[str, Any]
Got = TypeVar("Got")

CHAIN: LiteralString = """
    select c.id, c.created_at, c.source, c.reason, c.version_id as version, c.job_id as job,
           c.old_session_id as old, c.new_session_id as session, c.parent_session_id as parent
      from session_chain c
     where c.project_id = %(project)s and (%(before)s::bigint is null or c.id < %(before)s)
     order by c.id desc limit %(limit)s"""
CHAT: LiteralString = """
    select id, role, content as text, ai_session_id as session, job_id as job, created_at as at
      from project_chat_log_minimal
     where project_id = %(project)s and (%(before)s::bigint is null or id < %(before)s)
     order by id desc limit %(limit)s"""


@got(router, "")
async def project(here: Here, who: Who, project: str) -> Row:
    """The head, the newest version, and the work that is open."""
    await check_project(here, who, project)

    def work(conn: Connection) -> Row | None:
        found = projects.get(conn, project)
        if found is None or who.user not in (None, found.user_id):
            return None
        version = projects.latest_version(conn, project)
        return {
            "project": project,
            "user": found.user_id,
            "head": found.last_ai_session_id,
            "version": version.version_id if version else None,
            "versions": [v.version_id for v in projects.versions(conn, project, limit=50)],
            "open": [
                _job(row) for row in listed(conn, listing.open_of(conn, project, limit=100))
            ],
        }

    found = await _asked(work)
    if found is None:
        raise not_found("project")
    return found


@got(router, "/chain")
async def chain(
    here: Here, who: Who, project: str, limit: Limit = 50, cursor: Cursor = None
) -> forms.Page:
    """Moves of the head, the newest first."""
    await check_project(here, who, project)
    return await _page(here, CHAIN, "chain", project, limit, cursor)


@got(router, "/chat")
async def chat(
    here: Here, who: Who, project: str, limit: Limit = 50, cursor: Cursor = None
) -> forms.Page:
    """What was said in turns that were committed, the newest first."""
    await check_project(here, who, project)
    return await _page(here, CHAT, "chat", project, limit, cursor)


@got(router, "/jobs")
async def jobs(
    here: Here, who: Who, project: str, limit: Limit = 50, cursor: Cursor = None
) -> forms.Page:
    """Jobs: what is open in the order of work, then what has ended, the newest first."""
    await check_project(here, who, project)
    told = _open_cursor("jobs", project, cursor)
    after = Place.of(told) if told else None

    def work(conn: Connection) -> forms.Page:
        wanted = Wanted(project=project, user=who.user, limit=limit, after=after)
        found = listing.jobs(conn, wanted)
        more = len(found) == limit
        return forms.Page(
            items=[_job(row) for row in listed(conn, found)],
            cursor=_cursor("jobs", project, found[-1].place.text()) if more else None,
        )

    return await _asked(work)


@got(router, "/versions/{version}/diff", response_class=Response)
async def diff(
    here: Here,
    who: Who,
    project: str,
    version: str,
    against: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """What the version changed, as a git patch; against the one before it unless another is named."""
    await check_project(here, who, project)
    if not name_fits(version) or not name_fits(against or "x"):
        raise not_found("version")

    def work(conn: Connection) -> bytes:
        return patch_of(made(conn, project, version, against))

    try:
        patch = await _asked(work)
    except Failed as exc:
        raise Problem(404, "unknown_version", str(exc)) from exc
    return Response(patch, media_type="text/x-patch; charset=utf-8")


async def _page(
    here: Any, query: LiteralString, kind: str, project: str, limit: int, cursor: str | None
) -> forms.Page:
    before = _open_cursor(kind, project, cursor)
    async with here.pool.connection() as conn:
        items = await _rows(conn, query, {"project": project, "before": before, "limit": limit})
    more = len(items) == limit
    return forms.Page(
        items=items, cursor=_cursor(kind, project, items[-1]["id"]) if more else None
    )


async def _rows(conn: AsyncConnection[Any], query: LiteralString, params: Row) -> list[Row]:
    async with conn.cursor(row_factory=dict_row) as cur:
        return await (await cur.execute(query, params)).fetchall()


async def _asked(work: Callable[[Connection], Got]) -> Got:
    """Do it in a thread, with a connection of the plain pool."""

    def inside() -> Got:
        with connection() as conn:
            return work(conn)

    return await anyio.to_thread.run_sync(inside)


def _job(row: Row) -> Row:
    """A job without what only operators are to see."""
    hidden = ("host", "worker_pid", "agent_pid", "rescues")
    return {name: value for name, value in row.items() if name not in hidden}


def _cursor(kind: str, project: str, last: Any) -> str:
    return urlsafe_b64encode(f"{kind} {project} {last}".encode()).decode()


def _open_cursor(kind: str, project: str, cursor: str | None) -> str | None:
    """Where the page before ended. Raises Problem for a cursor of another list."""
    if cursor is None:
        return None
    try:
        told, of, last = urlsafe_b64decode(cursor.encode()).decode().split(" ")
        if kind != "jobs":
            int(last)
        else:
            Place.of(last)
    except ValueError:
        told, of, last = "", "", ""
    if (told, of) != (kind, project):
        raise Problem(422, "bad_cursor", "The cursor is of another list: begin without one.")
    return last
