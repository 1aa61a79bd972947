"""The command that shows jobs: many, or one, once or as they change."""

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from psycopg import Connection

from config.settings import BadSettings
from db.core.pool import NoDatabase
from db.jobs import listing
from db.jobs.jobs import Job
from db.jobs.listing import Listed, Wanted
from worker.cli import naming
from worker.cli.complaints import Left, WrongUsage
from worker.cli.console import AsJson, app, flag, known_project, ledger, screen
from worker.cli.moments import Since
from worker.cli.pages import jobs as pages
from worker.failures.failed import Failed
from worker.reports import jobs as documents


class Kind(StrEnum):
    """What was asked for; `build` is a first one, `update` and `repair` one of a project that was there."""

    BUILD = "build"
    UPDATE = "update"
    REPAIR = "repair"
    METADATA = "metadata"
    COMPACTION = "compaction"
    CHAT_PLAN = "chat-plan"


class State(StrEnum):
    """The seven of the ledger."""

    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    QUARANTINED = "quarantined"


EVERY = 2.0  # seconds between two looks of --watch
EMPTY = "There are no jobs: ask for one with `baton enqueue`."
NONE_SUCH = "No job is like that."


def _any(of: type[StrEnum]) -> str:
    return ", ".join(one.value for one in of)


@app.command("jobs")
def show_jobs(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="ID", help="One, in detail; or a task whose message was refused."
        ),
    ] = None,
    *,
    project: Annotated[str | None, typer.Option(help="Of this project.")] = None,
    user: Annotated[str | None, typer.Option(help="Of this user.")] = None,
    state: Annotated[
        list[State] | None,
        typer.Option(metavar="STATE", help=f"{_any(State)}; may be repeated."),
    ] = None,
    kind: Annotated[
        list[Kind] | None, typer.Option(metavar="KIND", help=f"{_any(Kind)}; may be repeated.")
    ] = None,
    since: Since = None,
    after: Annotated[
        str | None,
        typer.Option(metavar="ID", parser=naming.parse_id, help="Go on behind this one."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to list.")] = 50,
    watch: Annotated[bool, flag("--watch", "Go on showing what changes.")] = False,
    _json: AsJson = False,
) -> None:
    """List jobs, what is open first; or show one with all its steps."""
    narrowed = [project, user, state, kind, since, after]
    if job and any(narrowed):
        raise WrongUsage("Name a job, or say which to list, not both.")
    if job:
        _show_named(job, watch=watch)
        return
    with ledger() as conn:
        if watch and screen.json:
            raise WrongUsage("--watch has no end, so it makes no document: leave --json out.")
        wanted = Wanted(
            project=project,
            user=user,
            states=tuple(one.value for one in state or ()),
            kinds=tuple(one.value.replace("-", "_") for one in kind or ()),
            since=since,
            after=naming.place_named(conn, after) if after else None,
            limit=limit,
        )
        if watch:
            _watch(conn, wanted, narrowed=any(narrowed))
        else:
            _list(conn, wanted, narrowed=any(narrowed))


def _list(conn: Connection, wanted: Wanted, *, narrowed: bool) -> None:
    found = _found(conn, wanted)
    rows = documents.listed(conn, found)
    page = _page(conn, rows, narrowed=narrowed)
    if len(found) == wanted.limit and screen.terminal:
        last = naming.shown(conn, jobs=[found[-1].id])[found[-1].id].short
        page = [*page, f"There may be more: add `--after {last}`."]
    screen.show(rows, page)


def _found(conn: Connection, wanted: Wanted) -> list[Listed]:
    """The jobs; raises Failed where the project or user is unknown, which is no empty list."""
    found = listing.jobs(conn, wanted)
    if not found and wanted.project and not _has_jobs(conn, wanted.project):
        known_project(conn, wanted.project)
    if not found and wanted.user and not listing.is_user(conn, wanted.user):
        raise Failed(f"User {wanted.user} has no project and no job: look at `baton projects`.")
    return found


def _has_jobs(conn: Connection, project_id: str) -> bool:
    return bool(listing.jobs(conn, Wanted(project=project_id, limit=1)))


def _page(conn: Connection, rows: Sequence[dict[str, Any]], *, narrowed: bool) -> Any:
    names = naming.shown(conn, jobs=[row["id"] for row in rows])
    return pages.jobs_page(rows, names, empty=NONE_SUCH if narrowed else EMPTY)


def _show_named(given: str, *, watch: bool) -> None:
    try:
        with ledger() as conn:
            _show_one(conn, naming.job_of_task(conn, given), watch=watch)
    except (BadSettings, NoDatabase):
        naming.check_form(given)  # what is no id is wrong also where nobody can be asked
        raise


def _show_one(conn: Connection, job: Job, *, watch: bool) -> None:
    if watch:
        from worker.cli import asking

        asking.follow(conn, job)
        return
    document = documents.detailed(conn, job)
    jobs, sessions = pages.job_ids(document)
    names = naming.shown(conn, jobs=jobs, sessions=sessions)
    screen.show(document, pages.job_page(document, names))


def _watch(conn: Connection, wanted: Wanted, *, narrowed: bool) -> None:
    """Until Ctrl-C: at a terminal the list again and again, elsewhere what is new of it."""
    _found(conn, wanted)
    try:
        if screen.terminal:
            _redraw(conn, wanted, narrowed=narrowed)
        else:
            _tell_changes(conn, wanted)
    except KeyboardInterrupt as exc:
        raise Left("Stopped watching.") from exc


def _redraw(conn: Connection, wanted: Wanted, *, narrowed: bool) -> None:
    from worker.cli.redraw import redrawn

    with redrawn() as draw:
        while True:
            rows = documents.listed(conn, listing.jobs(conn, wanted))
            draw(screen.lines(_page(conn, rows, narrowed=narrowed)))
            time.sleep(EVERY)


def _tell_changes(conn: Connection, wanted: Wanted) -> None:
    """A line for each job when it is seen first, and when it stands otherwise."""
    seen = dict[Any, Any]()
    while True:
        now = dict[Any, Any]()
        for row in documents.listed(conn, listing.jobs(conn, wanted)):
            now[row["id"]] = state = pages.standing_key(row)
            if seen.get(row["id"]) != state:
                print("\n".join(screen.lines([pages.change(row, datetime.now(UTC))])))
        sys.stdout.flush()
        seen = seen | now if len(seen) < 10 * wanted.limit else now
        time.sleep(EVERY)
