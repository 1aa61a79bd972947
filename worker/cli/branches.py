"""The commands for branches: what there is beside a project's main line, taking over, dropping."""

from typing import Annotated

import typer

from db.projects import branches
from db.projects.branches import Branch
from worker.cli import naming
from worker.cli.console import AsJson, ProjectId, app, known_project, ledger, screen
from worker.cli.pages.ids import named
from worker.cli.pages.layout import Table


@app.command("branches")
def show_branches(
    project: ProjectId,
    drop: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="End this branch: its sessions and files go."),
    ] = None,
    _json: AsJson = False,
) -> None:
    """Show the branches of a project, oldest first; or drop one."""
    with ledger() as conn:
        known_project(conn, project)
        if drop is not None:
            drop = naming.branch_named(conn, project, drop)
            branches.drop(conn, project, drop)
            done = [f"Branch {drop} is dropped: none of its sessions is resumed any more."]
            screen.show({"project_id": project, "done": done}, done)
            return
        found = branches.of_project(conn, project)
        names = naming.shown(
            conn,
            sessions=[session for b in found for session in (b.from_session, b.head)],
            lanes=[b.lane for b in found],
        )
    table = Table(
        ("branch", "from", "head", "files", "used at", "promoted at"),
        [
            (
                *(named(one, names) for one in (b.lane, b.from_session, b.head)),
                _files(b),
                b.updated_at,
                b.promoted_at,
            )
            for b in found
        ],
        f"Project {project} has no branches: ask for a job with --branch-from SESSION.",
    )
    screen.show({"project_id": project, "branches": found}, [table])


@app.command("promote")
def promote_branch(
    project: ProjectId,
    branch: Annotated[str, typer.Argument(metavar="BRANCH")],
    onto: Annotated[
        str | None,
        naming.session_option("The head it is to replace; else the one that it began from."),
    ] = None,
    _json: AsJson = False,
) -> None:
    """Make a branch's session and files the project's, unless the main line has moved on."""
    with ledger() as conn:
        known_project(conn, project)
        branch = naming.branch_named(conn, project, branch)
        head = onto and naming.session_named(conn, onto, project)
        taken = branches.promote(conn, project, branch, onto=head)
    done = [f"Its session is {taken.head} now, that of {branch}."]
    if taken.tree:
        done.append("Its files are the branch's from the next job on.")
    screen.show({"project_id": project, "done": done}, done)


def _files(branch: Branch) -> str:
    return branch.tree[:12] if branch.tree else "as of its beginning"
