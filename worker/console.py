"""The program around the commands: its options, its errors, its connection.

Every command prints tables at a terminal, plain lines elsewhere, one JSON document with
`--json`, before or after the command's name.
"""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

import typer
from psycopg import Connection

from config import start
from config.release import version
from db import jobs, messages, migrate, pool, projects
from db.jobs import Job
from db.projects import Project
from worker.complaints import Failed, WrongUsage, complain
from worker.screen import Screen

screen = Screen()
app = typer.Typer(
    help="AI coding-agent sessions as background jobs.",
    add_completion=False,
    rich_markup_mode=None,  # help is plain text, for pipes too
    context_settings={"max_content_width": 100},
)


def main(
    arguments: list[str] | None = None, *, prepare: Callable[[str], None] | None = None
) -> int:
    """Run one command and return its exit code. `prepare` is called with its name before."""
    screen.json, screen.shown, screen.terminal = False, False, sys.stdout.isatty()
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="backslashreplace")
    try:
        command = typer.main.get_command(app)
        code = command.main(arguments, "baton", standalone_mode=False, obj=prepare)
        sys.stdout.flush()
    except BaseException as exc:
        return complain(exc, document=screen.json and not screen.shown)
    return code if isinstance(code, int) else 0


def parse_id(given: str) -> UUID:
    """An id of a job or session, as people pass it."""
    try:
        return UUID(given)
    except ValueError as exc:
        raise typer.BadParameter(f"{given} is not a UUID") from exc


def _as_json(value: bool) -> bool:
    screen.json = screen.json or value
    return value


AsJson = Annotated[
    bool, typer.Option("--json", callback=_as_json, help="Print one JSON document.")
]
Id = Annotated[UUID, typer.Argument(metavar="ID", parser=parse_id)]
ProjectId = Annotated[str, typer.Argument(metavar="PROJECT")]


def flag(name: str, told: str) -> Any:
    """An option that is there or not."""
    return typer.Option(name, help=told)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(version())
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print it.")
]


@app.callback(invoke_without_command=True)
def begin(context: typer.Context, _json: AsJson = False, _version: Version = False) -> None:
    """AI coding-agent sessions as background jobs that never lose the thread."""
    if context.invoked_subcommand is None:
        raise WrongUsage("Say what to do: `baton --help` lists the commands.")
    if context.obj:
        context.obj(context.invoked_subcommand)
    if "--help" not in sys.argv:
        start.begin()


@contextmanager
def ledger() -> Generator[Connection]:
    """A connection to a database that is migrated."""
    with pool.connect() as conn:
        if waiting := migrate.pending(conn):
            raise Failed(f"Migrations are pending ({', '.join(waiting)}): run `baton migrate`.")
        yield conn


def known_job(conn: Connection, job_id: UUID) -> Job:
    """The job of that id; raises Failed if there is none."""
    found = jobs.get(conn, job_id)
    if found is not None:
        return found
    if refused := messages.refused(conn, str(job_id)):
        raise Failed(
            f"There is no job {job_id}: the message of {refused.task} was refused at"
            f" {refused.at:%Y-%m-%d %H:%M:%SZ}. {refused.error}"
        )
    raise Failed(f"There is no job {job_id}: `baton jobs` lists them.")


def known_project(conn: Connection, project_id: str) -> Project:
    """The project of that id; raises Failed if there is none."""
    found = projects.get(conn, project_id)
    if found is None:
        raise Failed(
            f"Project {project_id} is unknown: `baton report sync` lists those there are."
        )
    return found
