"""The commands that look at all of it: reports, and the doctor."""

from typing import Annotated, Any, Literal

import typer
from psycopg import Connection

from worker.cli import naming
from worker.cli.complaints import WrongUsage
from worker.cli.console import AsJson, app, flag, known_project, ledger, screen
from worker.cli.pages import figures as pages
from worker.cli.pages.layout import Page
from worker.reports import figures

About = Literal["sync", "resume", "cost", "checks", "health"]


@app.command("report")
def show_report(
    about: Annotated[About, typer.Argument()],
    days: Annotated[
        int, typer.Option(min=1, max=3650, help="For resume, cost and checks.")
    ] = 30,
    project: Annotated[str | None, typer.Option(help="For cost: this one only.")] = None,
    whole: Annotated[
        bool, flag("--all", "For resume and cost: all of the period, however many turns.")
    ] = False,
    _json: AsJson = False,
) -> None:
    """Report on sync, resuming, cost, checks or health."""
    if project and about != "cost":
        raise WrongUsage(f"The report on {about} is about all projects: leave --project out.")
    with ledger() as conn:
        match about:
            case "sync":
                found = figures.sync(conn)
                names = naming.shown(
                    conn,
                    sessions=pages.sync_sessions(found),
                    versions=[row["version_id"] for row in found["rows"][: pages.SHOWN]],
                )
                page = pages.sync_page(found, names)
            case "resume":
                found = figures.resume(conn, days, whole=whole)
                page = pages.resume_page(found)
            case "cost":
                if project:
                    known_project(conn, project)
                found = figures.cost(conn, days, project, whole=whole)
                page = pages.cost_page(found)
            case "checks":
                found = figures.checks(conn, days)
                page = pages.checks_page(found)
            case "health":
                found, page = _health(conn)
    screen.show(found, page)
    if found.get("out_of_sync"):
        raise typer.Exit(1)


def _health(conn: Connection) -> tuple[dict[str, Any], Page]:
    from worker.cli.pages.health import health_jobs, health_page
    from worker.reports.health import health

    found = health(conn)
    return found, health_page(found, naming.shown(conn, jobs=health_jobs(found)))


@app.command("doctor")
def examine_all(_json: AsJson = False) -> None:
    """Check everything that jobs need, a line each."""
    from worker.cli.doctor import examine
    from worker.cli.doctor.check import Check

    found = list[Check]()
    for check in examine():
        found.append(check)
        if not screen.json:
            screen.line(check.state, f"{check.name}: {check.text}")
    ok = all(check.state != "fail" for check in found)
    if screen.json:
        screen.show({"ok": ok, "checks": found}, [])
    if not ok:
        raise typer.Exit(1)
