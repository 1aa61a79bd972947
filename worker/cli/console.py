"""The program around the commands: its options, its errors, its connection.

Every command prints tables at a terminal, plain lines elsewhere, one JSON document with
`--json`, before or after the command's name. What only some commands need is imported by
them: nothing here imports psycopg or the settings before a command asks for them.
"""

import gc
import json
import os
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.command_table import Commands
from worker.cli.complaints import WrongUsage, complain
from worker.cli.screen import Screen
from worker.failures.failed import Failed

if TYPE_CHECKING:
    from psycopg import Connection

    from db.projects.projects import Project

PATIENCE = "5s"  # for whoever holds what a command needs
# New objects until garbage is looked for: imports make 85,000, and none of it.
FEW_COLLECTIONS = 200_000
PLUGINS = "PYDANTIC_DISABLE_PLUGINS"  # to look for them, all that is installed is read

screen = Screen()
app = typer.Typer(
    cls=Commands,
    help="AI coding-agent sessions as background jobs.",
    rich_markup_mode=None,  # help is plain text, for pipes too
    context_settings={"max_content_width": 100},
)


def main(
    arguments: list[str] | None = None, *, prepare: Callable[[str], None] | None = None
) -> int:
    """Run one command and return its exit code. `prepare` is called with its name before."""
    gc.set_threshold(FEW_COLLECTIONS)
    os.environ.setdefault(PLUGINS, "__all__")
    screen.json, screen.shown, screen.terminal = False, False, sys.stdout.isatty()
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")
    try:
        command = typer.main.get_command(app)
        code = command.main(arguments, "baton", standalone_mode=False, obj=prepare)
        sys.stdout.flush()
    except BaseException as exc:
        # What stands before --json may be wrong already: then the option was not come to.
        wanted = screen.json or "--json" in (sys.argv[1:] if arguments is None else arguments)
        return complain(exc, document=wanted and not screen.shown)
    return code if isinstance(code, int) else 0


def _as_json(value: bool) -> bool:
    screen.json = screen.json or value
    return value


def flag(name: str, told: str) -> Any:
    """An option that is there or not."""
    return typer.Option(name, help=told)


AsJson = Annotated[
    bool, typer.Option("--json", callback=_as_json, help="Print one JSON document.")
]
Version = Annotated[bool, flag("--version", "Print it.")]


@app.callback(invoke_without_command=True)
def begin(context: typer.Context, _json: AsJson = False, asked: Version = False) -> None:
    """AI coding-agent sessions as background jobs that never lose the thread."""
    if asked:
        from config.release import version

        typer.echo(json.dumps({"version": version()}) if screen.json else version())
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise WrongUsage("Say what to do: `baton --help` lists the commands.")
    if context.obj:
        context.obj(context.invoked_subcommand)
    if "--help" not in sys.argv:
        from config import start

        start.begin()


@contextmanager
def ledger() -> "Generator[Connection]":
    """A connection to a database that is migrated; it waits for nobody's lock without an end."""
    from db.core import migrate, pool

    with pool.connect() as conn:
        if waiting := migrate.pending(conn):
            raise Failed(f"Migrations are pending ({', '.join(waiting)}): run `baton migrate`.")
        conn.wait_at_most(PATIENCE)
        yield conn


def known_project(conn: "Connection", project_id: str) -> "Project":
    """The project of that id; raises Failed if there is none."""
    from db.projects import projects

    found = projects.get(conn, project_id)
    if found is None:
        raise Failed(
            f"Project {project_id} is unknown: `baton projects` lists those there are."
        )
    return found


def complete_projects(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Projects whose ids begin so, for the shell's completion; none when that cannot be told."""
    from db.jobs import listing

    try:
        if context.find_root().obj:
            context.find_root().obj("projects")
        with ledger() as conn:
            return listing.projects_named(conn, incomplete)
    except Exception:
        return []


ProjectId = Annotated[str, typer.Argument(metavar="PROJECT", autocompletion=complete_projects)]
