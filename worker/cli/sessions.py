"""The commands about sessions: how one stands, and taking in one from elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from worker.cli import naming
from worker.cli.complaints import WrongUsage
from worker.cli.console import AsJson, ProjectId, app, flag, ledger, screen
from worker.cli.pages.layout import Page
from worker.cli.pages.sessions import session_page
from worker.failures.failed import Failed
from worker.text.units import size


@app.command("session")
def show_session(
    session: naming.Id,
    not_resumable: Annotated[bool, flag("--not-resumable", "Never resume it again.")] = False,
    _json: AsJson = False,
) -> None:
    """Show a session, and whether it can be resumed."""
    from db.operations import reports
    from worker.reports.sessions import describe

    with ledger() as conn:
        session_id = naming.session_named(conn, session)
        barred = not_resumable and reports.bar(conn, session_id)
        document = describe(conn, session_id)
        if document is None:
            raise Failed(f"Session {session_id} is unknown: `baton chain PROJECT` names them.")
        tried = [one["job_id"] for one in document["resume_attempts"]]
        page: Page = session_page(document, naming.shown(conn, jobs=tried))
    if not_resumable:
        page = ["It is not resumed again." if barred else "It was not resumable before."]
    screen.show(document, page)


@app.command("import-session")
def import_session(
    project: ProjectId,
    file: Annotated[Path, typer.Argument(help="The .jsonl file, as the CLI left it.")],
    *,
    user: Annotated[str, typer.Option(help="The project's owner.")],
    session: Annotated[
        str | None, naming.session_option("If the file is named otherwise; whole.")
    ] = None,
    no_head: Annotated[bool, flag("--no-head", "Keep the project's head as it is.")] = False,
    _json: AsJson = False,
) -> None:
    """Take in a session that the agent CLI recorded without Baton."""
    from worker.session import recordings

    if session and len(session) < naming.WHOLE:
        raise WrongUsage(
            f"{session} is not whole: a session from elsewhere is known to nobody."
        )
    with ledger() as conn:
        found, is_head = recordings.import_session(
            conn, project, file, user_id=user, session=session, head=not no_head
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
