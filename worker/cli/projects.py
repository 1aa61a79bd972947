"""The command that lists projects."""

from typing import Annotated

import typer

from db.jobs import listing
from worker.cli import naming
from worker.cli.console import AsJson, app, flag, ledger, screen
from worker.cli.moments import Since
from worker.cli.pages.projects import projects_page
from worker.failures.failed import Failed

EMPTY = "There are no projects: the first `baton enqueue build` makes one."
NONE_SUCH = "No project is like that."


@app.command("projects")
def show_projects(
    user: Annotated[str | None, typer.Option(help="Of this user.")] = None,
    is_open: Annotated[bool, flag("--open", "With work that is open.")] = False,
    since: Since = None,
    after: Annotated[
        str | None, typer.Option(metavar="PROJECT", help="Go on behind this one.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to list.")] = 50,
    _json: AsJson = False,
) -> None:
    """List projects in the order of their ids, each with its session and its open jobs."""
    with ledger() as conn:
        found = listing.projects(
            conn, user=user, is_open=is_open, since=since, after=after, limit=limit
        )
        if not found and user and not listing.is_user(conn, user):
            raise Failed(f"User {user} has no project and no job: look at `baton projects`.")
        names = naming.shown(conn, sessions=[row["last_ai_session_id"] for row in found])
    narrowed = any([user, is_open, since, after])
    page = projects_page(found, names, empty=NONE_SUCH if narrowed else EMPTY)
    if len(found) == limit and screen.terminal:
        page = [*page, f"There may be more: add `--after {found[-1]['project_id']}`."]
    screen.show(found, page)
