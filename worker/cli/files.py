"""`baton diff`; and what `baton project` does with files: import them, bring a rewind's here."""

import socket
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from typing import Annotated

import typer
from psycopg import Connection

from db.core import events
from db.core.events import Event
from db.projects import heads, projects
from worker.cli import naming
from worker.cli.console import AsJson, ProjectId, app, flag, known_project, ledger, screen
from worker.text.units import clean

MOST_NAMED = 5  # of what an import left out
MOST_LINES = 5000  # of a patch, at a terminal


def rewind(conn: Connection, project_id: str, session: str) -> list[str]:
    """Move the head back, and the files with it if they are here; what was done.

    Raises HeadHeld, with nothing changed, also where the session does not load.
    """
    from worker.session import ladder
    from worker.workspace import workspace

    with conn.transaction():
        tree = projects.rewind(conn, project_id, session)
        if lost := ladder.look(conn, project_id, session).reason:
            raise heads.HeadHeld(
                f"The transcript of that session cannot be loaded ({lost}): choose another of"
                " `baton chain`; `baton import-session` brings in one from before Baton."
            )
    moved = f"Its session is {session} now"
    if tree is None:
        return [f"{moved}; its files stay: which it had then is not known."]
    found = projects.get(conn, project_id)
    kept = workspace.bring_now(conn, found) if found else None
    if kept is None:
        return [f"{moved}; its files follow when its next job begins."]
    for ref in kept:
        told = Event("workspace.kept_aside", None, {"ref": ref, "host": socket.gethostname()})
        events.append(conn, project_id, [told])
    return [
        f"{moved}, and its files are those it had then.",
        *(f"What was there is kept in its repository as {ref}." for ref in kept),
    ]


def import_project(conn: Connection, project_id: str, user: str, source: str) -> None:
    """Make the project of files that are there."""
    from worker.text import file_names
    from worker.workspace import importing

    found = importing.import_place(conn, project_id, user_id=user, source=source)
    page = [f"{found.files} files are version {found.version_id} of project {project_id}."]
    if found.left_out:
        some = ", ".join(f"{each.name} ({each.why})" for each in found.left_out[:MOST_NAMED])
        more = " and others" if len(found.left_out) > MOST_NAMED else ""
        page.append(f"Left out: {len(found.left_out)}, {some}{more}.")
    left_out = file_names.told(found.left_out)
    document = {
        **asdict(found),
        "left_out": left_out["names"],
        "left_out_count": left_out["count"],
    }
    screen.show(document, page)


@app.command("diff")
def show_diff(
    project: ProjectId,
    version: Annotated[str | None, typer.Argument(help="The newest, unless named.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The one before it, unless named.")
    ] = None,
    stat: Annotated[bool, flag("--stat", "How much changed in which file.")] = False,
    _json: AsJson = False,
) -> None:
    """Print what a version changed, as a git patch."""
    from worker.workspace.diff import MOST, diff

    with ledger() as conn:
        known_project(conn, project)
        one, other = (
            given and naming.version_named(conn, project, given) for given in (version, against)
        )
        found = diff(conn, project, one, other)
    if screen.json:
        changes = found.changes()
        document = {
            "project_id": project,
            "version": found.version.version_id,
            "against": found.against.version_id if found.against else None,
            "files": changes[:MOST],
            "files_count": len(changes),
            "added": sum(one.added or 0 for one in changes),
            "removed": sum(one.removed or 0 for one in changes),
        }
        screen.show(document, [])
    elif stat:
        _print(found.stat().splitlines())
    elif screen.terminal:
        with tempfile.TemporaryFile() as patch:
            found.pour(patch)
            patch.seek(0)
            lines = (line.decode(errors="replace").rstrip("\n") for line in patch)
            _print(islice(lines, MOST_LINES))
            if more := sum(1 for _ in patch):
                _print([f"[{more} more lines: send it to a file to have all of it]"])
    else:
        found.pour(sys.stdout.buffer)  # as it is: for `git apply`


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print("\t".join(clean(part) if part else "" for part in line.split("\t")))
