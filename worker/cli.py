"""The command line: asking for work, and looking after it.

An error is one sentence on stderr: 1 the thing failed or is unknown, 2 wrong usage. What
only some commands need is imported by them, so that looking is quick.
"""

import sys
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import typer
from psycopg import Connection
from psycopg.errors import LockNotAvailable

from config.settings import settings
from db import jobs, messages, migrate, projects, reports, turns
from db.projects import Project
from worker import branching as branching  # it adds its commands
from worker import cli_files, pages
from worker import cli_import as cli_import  # it adds its command
from worker import deletion_cli as deletion_cli  # it adds its command
from worker.complaints import INTERRUPTED, Failed, WrongUsage
from worker.console import (
    AsJson,
    Id,
    ProjectId,
    app,
    flag,
    known_job,
    known_project,
    ledger,
    main,
    parse_id,
    screen,
)
from worker.screen import Page, clean

__all__ = ["app", "main"]

Kind = Literal["build", "update", "chat-plan", "metadata", "compaction"]
Busy = Literal["enqueue", "reject", "replace", "interrupt"]
OnLost = Literal["fresh", "ask"]
About = Literal["sync", "resume", "cost", "health"]
SMALLEST, LARGEST = -1_000_000, 1_000_000  # as worker.client, which is slow to import


@app.command("migrate")
def bring_up_to_date(_json: AsJson = False) -> None:
    """Bring the database up to date, while others work with it."""

    def tell(line: str) -> None:
        print(clean(line), file=sys.stderr if screen.json else sys.stdout, flush=True)

    try:
        applied = migrate.migrate(tell=tell)
    except KeyboardInterrupt:
        tell("Stopped: what is applied stays, and `baton migrate` goes on from there.")
        raise typer.Exit(INTERRUPTED) from None
    page = [] if applied else ["Nothing to apply: it is up to date."]
    if screen.json or page:
        screen.show({"applied": applied}, page)


@app.command("env")
def show_env(_json: AsJson = False) -> None:
    """Print the addresses in effect, as NAME=value lines."""
    url = settings().redis_url
    found = {
        "DATABASE_URL": settings().database_url,
        "REDIS_URL": url,
        "CELERY_BROKER_URL": settings().redis_way().for_celery if url else "",
    }
    if settings().flower_url:
        found["BATON_FLOWER_URL"] = settings().flower_url
    if screen.json:
        screen.show(found, [])
    else:
        print(*(f"{name}={value}" for name, value in found.items()), sep="\n")  # for `eval`


@app.command("enqueue")
def ask(
    kind: Annotated[Kind, typer.Argument()],
    *,
    project: Annotated[str, typer.Option(help="Its id; the first build makes it.")],
    user: Annotated[str, typer.Option(help="The project's owner.")],
    prompt: Annotated[
        str | None, typer.Option(help="What the agent is to do; - reads it from stdin.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Asking again under it adds nothing.")] = None,
    busy: Annotated[Busy, typer.Option(help="If the project has work already.")] = "enqueue",
    wait: Annotated[bool, flag("--wait", "Until the chain has ended.")] = False,
    version_id: Annotated[str | None, typer.Option(help="The version it is about.")] = None,
    workspace: Annotated[str | None, typer.Option(help="Of a new project; absolute.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's name.")] = None,
    max_turns: Annotated[int | None, typer.Option(help="Most turns of the agent.")] = None,
    budget: Annotated[float | None, typer.Option(help="Most US dollars for a turn.")] = None,
    priority: Annotated[int, typer.Option(min=SMALLEST, max=LARGEST)] = 0,
    previous_session: Annotated[
        UUID | None, typer.Option(metavar="SESSION", parser=parse_id, help="One to go on from.")
    ] = None,
    on_lost: Annotated[
        OnLost, typer.Option(help="If its session is lost: begin fresh, or ask.")
    ] = "fresh",
    branch_from: Annotated[
        UUID | None,
        typer.Option(metavar="SESSION", parser=parse_id, help="Work beside the main line."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Of a new project: the one whose session it forks.")
    ] = None,
    operator: Annotated[
        bool, flag("--operator", "May ask as a reserved user, such as _template.")
    ] = False,
    _json: AsJson = False,
) -> None:
    """Ask for a job.

    With --wait: follow its chain to the end, and exit 1 unless all of it is done.
    """
    from worker import asking

    request = asking.request(
        kind,
        project=project,
        user=user,
        prompt=asking.read_prompt() if prompt == "-" else prompt,
        key=key,
        busy=busy,
        version=version_id,
        workspace=workspace,
        model=model,
        max_turns=max_turns,
        budget=budget,
        priority=priority,
        previous_session_id=str(previous_session) if previous_session else None,
        on_lost=None if on_lost == "fresh" else on_lost,
        branch_from=str(branch_from) if branch_from else None,
        template=template,
    )
    with ledger() as conn:
        job = asking.enqueue(conn, request, operator=operator)
        if wait:
            asking.wait(conn, job, screen)
        else:
            screen.show(pages.job_document(job), [f"{job.id}  {kind}  {job.state}"])


@app.command("jobs")
def show_jobs(
    job: Annotated[
        UUID | None, typer.Argument(metavar="ID", parser=parse_id, help="One, in detail.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to list.")] = 50,
    _json: AsJson = False,
) -> None:
    """List jobs, what is open first; or show one with all its steps."""
    with ledger() as conn:
        if job is None:
            found = jobs.recent(conn, limit)
            screen.show([pages.job_document(one) for one in found], pages.jobs_page(found))
            return
        one = known_job(conn, job)
        held, chain = reports.held(conn, one.id), jobs.chain(conn, one.chain_id)
        steps, looked = jobs.turns(conn, one.id), jobs.resume_attempts(conn, one.id)
    document = {
        **pages.job_document(one),
        **held,
        "steps": steps,
        "sessions_looked_at": looked,
        "chain": [{"id": j.id, "kind": j.kind, "state": j.state} for j in chain],
    }
    screen.show(document, pages.job_page(one, held, chain, steps, looked))


@app.command("cancel")
def cancel_job(job: Id, _json: AsJson = False) -> None:
    """Cancel a job and what follows in its chain."""
    with ledger() as conn:
        asked = known_job(conn, job)
        was_open = {j.id for j in jobs.chain(conn, asked.chain_id) if not j.ended}
        try:
            after = jobs.cancel(conn, asked.id) or asked
        except LockNotAvailable:
            messages.revoke(conn, [asked.id])
            raise Failed(
                f"A transaction that is still open holds job {asked.id}, most likely a request's:"
                " it is cancelled as soon as that one ends."
            ) from None
        told = [j for j in jobs.chain(conn, asked.chain_id) if j.id in was_open]
    if not told and after.state != "cancelled":
        raise Failed(f"Job {after.id} has ended already ({after.state}): nothing is cancelled.")
    screen.show(
        {"id": after.id, "state": after.state, "jobs": [pages.job_document(j) for j in told]},
        [pages.cancelled(j) for j in told] or [f"Job {after.id} was cancelled before."],
    )


@app.command("retry")
def try_again(
    job: Id,
    fresh: Annotated[bool, flag("--fresh", "In a fresh session.")] = False,
    _json: AsJson = False,
) -> None:
    """Ask for a finished job once more."""
    with ledger() as conn:
        old = known_job(conn, job)
        new = jobs.again(conn, old.id, fresh=fresh)
    if new is None:
        raise Failed(f"Job {old.id} is {old.state}: wait for its end, or `baton cancel` it.")
    screen.show(pages.job_document(new), [f"{new.id}  {new.kind}  {new.state}"])


class Choice(StrEnum):
    """What to do about a session that is lost."""

    RETRY = "retry"
    START_NEW = "start-new"


@app.command("answer")
def answer_job(job: Id, choice: Choice, _json: AsJson = False) -> None:
    """Tell a job that asked what to do about its lost session."""
    with ledger() as conn:
        found = known_job(conn, job)
        if not turns.answer(conn, found.id, choice.value.replace("-", "_")):
            raise Failed(f"Job {found.id} is {found.state} and asks nothing: see `baton jobs`.")
        found = known_job(conn, job)
    screen.show(pages.job_document(found), [f"{found.id}  {found.kind}  {found.state}"])


@app.command("chain")
def show_chain(project: ProjectId, _json: AsJson = False) -> None:
    """Show every move of a project's session, oldest first."""
    with ledger() as conn:
        known_project(conn, project)
        moves = reports.moves(conn, project)
    screen.show({"project_id": project, "moves": moves}, pages.chain_page(project, moves))


@app.command("project")
def set_right(
    project: ProjectId,
    fresh: Annotated[bool, flag("--fresh", "Let its next turn begin a fresh session.")] = False,
    rewind: Annotated[
        UUID | None,
        typer.Option(
            metavar="SESSION", parser=parse_id, help="Move head and files back to this one."
        ),
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
    unlock: Annotated[
        bool, flag("--unlock", "Take its jobs from dead workers; unpark them.")
    ] = False,
    _json: AsJson = False,
) -> None:
    """Show a project, set its session right, or make it of files that are there."""
    if fresh + unlock + (rewind is not None) + (source is not None) > 1:
        raise WrongUsage("Use one of --fresh, --rewind, --unlock and --import at a time.")
    if (source is None) != (user is None):
        raise WrongUsage("Use --import and --user together: whose project, of which files.")
    with ledger() as conn:
        if source and user:
            cli_files.take_in(conn, project, user, source)
            return
        found = known_project(conn, project)
        if fresh:
            projects.begin_fresh(conn, project)
            _did(project, ["Its next turn begins a fresh session, told of the past."])
        elif rewind:
            _did(project, cli_files.rewind(conn, project, str(rewind)))
        elif unlock:
            _unlock(conn, project)
        else:
            _show_project(conn, found)


def _did(project_id: str, done: list[str]) -> None:
    screen.show({"project_id": project_id, "done": done}, done)


def _unlock(conn: Connection, project_id: str) -> None:
    from worker.unlock import unlock

    found = unlock(conn, project_id)
    if found.held:
        raise Failed(" ".join([*found.done, *found.held]))
    _did(project_id, found.done or ["Nothing was stuck: no dead worker, nothing parked."])


def _show_project(conn: Connection, found: Project) -> None:
    version = projects.latest_version(conn, found.project_id)
    overview = reports.overview(conn, found.project_id)
    waiting = reports.open_jobs(conn, found.project_id)
    document = {"project": found, "latest_version": version, **overview, "open_jobs": waiting}
    screen.show(document, pages.project_page(found, version, overview, waiting))


@app.command("session")
def show_session(
    session: Id,
    not_resumable: Annotated[bool, flag("--not-resumable", "Never resume it again.")] = False,
    _json: AsJson = False,
) -> None:
    """Show a session, and whether it can be resumed."""
    from worker.sessions import describe

    session_id = str(session)
    with ledger() as conn:
        barred = not_resumable and reports.bar(conn, session_id)
        document = describe(conn, session_id)
    if document is None:
        raise Failed(f"Session {session_id} is unknown: `baton chain PROJECT` names them.")
    page: Page = pages.session_page(document)
    if not_resumable:
        page = ["It is not resumed again." if barred else "It was not resumable before."]
    screen.show(document, page)


@app.command("report")
def show_report(
    about: Annotated[About, typer.Argument()],
    days: Annotated[int, typer.Option(min=1, max=3650, help="For resume and cost.")] = 30,
    project: Annotated[str | None, typer.Option(help="For cost: this one only.")] = None,
    whole: Annotated[
        bool, flag("--all", "For resume and cost: all of the period, however many turns.")
    ] = False,
    _json: AsJson = False,
) -> None:
    """Report on sync, resuming, cost or health."""
    from worker import figures, health

    with ledger() as conn:
        match about:
            case "sync":
                found = figures.sync(conn)
            case "resume":
                found = figures.resume(conn, days, whole=whole)
            case "cost":
                found = figures.cost(conn, days, project, whole=whole)
            case "health":
                found = health.health(conn)
    screen.show(found.document, found.page)
    if not found.ok:
        raise typer.Exit(1)


@app.command("doctor")
def examine_all(_json: AsJson = False) -> None:
    """Check everything that jobs need, a line each."""
    from worker.doctor import Check, examine

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
