"""The commands about one project: how it stands, setting it right, the path of its session."""

from typing import Annotated

import typer
from psycopg import Connection

from db.jobs import checks
from db.projects import projects
from db.projects.projects import Project
from worker.cli import files, naming
from worker.cli.complaints import WrongUsage
from worker.cli.console import AsJson, ProjectId, app, flag, known_project, ledger, screen
from worker.cli.pages import projects as pages
from worker.failures.failed import Failed
from worker.failures.refused import refusing
from worker.reports.projects import detailed, path


@app.command("chain")
def show_chain(project: ProjectId, _json: AsJson = False) -> None:
    """Show every move of a project's session, oldest first."""
    with ledger() as conn:
        known_project(conn, project)
        document = path(conn, project)
        moves = document["moves"]
        names = naming.shown(
            conn,
            sessions=pages.chain_sessions(moves),
            versions=[m["version_id"] for m in moves],
        )
    screen.show(document, pages.chain_page(document, names))


@app.command("project")
def set_right(
    project: ProjectId,
    fresh: Annotated[bool, flag("--fresh", "Let its next turn begin a fresh session.")] = False,
    rewind: Annotated[
        str | None, naming.session_option("Move head and files back to this one.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--import",
            metavar="SOURCE",
            help="Make it of a directory's files, or a repository's.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option(help="With --import: whose it is to be.")] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(help="A shell line that each version must pass; several in order."),
    ] = None,
    no_check: Annotated[bool, flag("--no-check", "Let it have no check of its own.")] = False,
    unlock: Annotated[
        bool, flag("--unlock", "Take its jobs from dead workers; unpark them.")
    ] = False,
    _json: AsJson = False,
) -> None:
    """Show a project, set its session or check right, or make it of files that are there."""
    given = (fresh, unlock, rewind is not None, source is not None, bool(check), no_check)
    if sum(given) > 1:
        raise WrongUsage(
            "Use one of --fresh, --rewind, --unlock, --import, --check and --no-check at a time."
        )
    if (source is None) != (user is None):
        raise WrongUsage("Use --import and --user together: whose project, of which files.")
    with ledger() as conn:
        if source and user:
            files.import_project(conn, project, user, source)
            return
        found = known_project(conn, project)
        if fresh:
            projects.begin_fresh(conn, project)
            _did(project, ["Its next turn begins a fresh session, told of the past."])
        elif rewind:
            _did(
                project,
                files.rewind(conn, project, naming.session_named(conn, rewind, project)),
            )
        elif check or no_check:
            _set_check(conn, project, check or None)
        elif unlock:
            _unlock(conn, project)
        else:
            _show_project(conn, found)


def _did(project_id: str, done: list[str]) -> None:
    screen.show({"project_id": project_id, "done": done}, done)


def _set_check(conn: Connection, project_id: str, lines: list[str] | None) -> None:
    with refusing():
        checks.set_commands(conn, project_id, lines)
    said = (
        "It has no check of its own: BATON_CHECK is what its versions must pass, if it is set."
    )
    if lines:
        said = f"Its versions must pass: {'; then '.join(lines)}"
    screen.show({"project_id": project_id, "check": lines, "done": [said]}, [said])


def _unlock(conn: Connection, project_id: str) -> None:
    from worker.cli.unlock import unlock

    found = unlock(conn, project_id)
    if found.held:
        raise Failed(" ".join([*found.done, *found.held]))
    _did(project_id, found.done or ["Nothing was stuck: no dead worker, nothing parked."])


def _show_project(conn: Connection, found: Project) -> None:
    document = detailed(conn, found)
    rows = document["open_jobs"]
    names = naming.shown(
        conn, jobs=[row["id"] for row in rows], lanes=[row["lane"] for row in rows]
    )
    screen.show(document, pages.project_page(document, names))
