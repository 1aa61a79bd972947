"""The command line, where sessions from elsewhere are taken in."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from worker.console import AsJson, ProjectId, app, flag, ledger, parse_id, screen
from worker.screen import size


@app.command("import-session")
def import_session(
    project: ProjectId,
    file: Annotated[Path, typer.Argument(help="The .jsonl file, as the CLI left it.")],
    *,
    user: Annotated[str, typer.Option(help="The project's owner.")],
    session: Annotated[
        UUID | None,
        typer.Option(metavar="ID", parser=parse_id, help="If the file is named otherwise."),
    ] = None,
    no_head: Annotated[bool, flag("--no-head", "Keep the project's head as it is.")] = False,
    _json: AsJson = False,
) -> None:
    """Take in a session that the agent CLI recorded without Baton."""
    from worker import recorded

    given = str(session) if session else None
    with ledger() as conn:
        found, is_head = recorded.take_in(
            conn, project, file, user_id=user, session=given, head=not no_head
        )
    bytes_read = file.stat().st_size
    agents = len(found.transcripts) - 1
    document = {
        "project_id": project,
        "session_id": found.figures.session_id,
        "head": is_head,
        "entries": found.entries,
        "sub_agents": agents,
        "bytes": bytes_read,
        "context_tokens": found.figures.context_tokens,
        "raw_cost_usd": found.figures.raw_cost_usd,
        "cli_version": found.figures.cli_version,
        "forgotten": found.forgotten,
    }
    what = f"Session {found.figures.session_id} ({found.entries} entries, {size(bytes_read)})"
    then = "the project's next job goes on from it" if is_head else "the head is as it was"
    told = [f"{what} is in project {project}; {then}."]
    if found.forgotten:
        told.append(
            "A compaction of the CLI's own left a gap in it: it goes on from behind the gap, and"
            f" {found.forgotten} messages before that are not known to it."
        )
    screen.show(document, told)
