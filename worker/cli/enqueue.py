"""The command that asks for a job."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from worker.cli import asking, naming
from worker.cli.complaints import WrongUsage
from worker.cli.console import AsJson, app, flag, ledger, screen
from worker.reports import jobs as documents

if TYPE_CHECKING:
    from psycopg import Connection

Kind = Literal["build", "update", "repair", "chat-plan", "metadata", "compaction"]
Busy = Literal["enqueue", "reject", "replace", "interrupt"]
OnCheckFailed = Literal["keep", "rewind", "ask"]
OnLost = Literal["fresh", "ask"]
RaceBy = Literal["first", "cheapest", "smallest"]
SMALLEST, LARGEST = -1_000_000, 1_000_000  # as worker.client


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
    previous_session: Annotated[str | None, naming.session_option("One to go on from.")] = None,
    on_lost: Annotated[
        OnLost, typer.Option(help="If its session is lost: begin fresh, or ask.")
    ] = "fresh",
    branch_from: Annotated[
        str | None, naming.session_option("Work beside the main line.")
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Of a new project: the one whose session it forks.")
    ] = None,
    callback_url: Annotated[
        str | None, typer.Option(help="Is told when the chain has ended.")
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(help="A shell line that the version must pass; several are run in order."),
    ] = None,
    no_check: Annotated[bool, flag("--no-check", "Whatever the project says.")] = False,
    check_tries: Annotated[
        int | None, typer.Option(help="How often the agent mends what a check finds.")
    ] = None,
    on_check_failed: Annotated[
        OnCheckFailed | None,
        typer.Option(help="What becomes of a version that fails for good."),
    ] = None,
    race: Annotated[
        int | None, typer.Option(help="So many do it side by side, 2 to 8; one is taken.")
    ] = None,
    race_by: Annotated[
        RaceBy | None, typer.Option(help="Which one of those that pass.")
    ] = None,
    race_models: Annotated[
        list[str] | None, typer.Option(help="A model for each of a race: give it as often.")
    ] = None,
    race_seconds: Annotated[
        int | None, typer.Option(help="How long those of it that pass are waited for.")
    ] = None,
    error_file: Annotated[
        Path | None, typer.Option(help="Of a repair: what was reported; - reads it from stdin.")
    ] = None,
    operator: Annotated[
        bool, flag("--operator", "May ask as a reserved user, such as _template.")
    ] = False,
    _json: AsJson = False,
) -> None:
    """Ask for a job.

    With --wait: follow its chain to the end, and exit 1 unless all of it is done.
    """
    given = asking.read_prompt() if prompt == "-" else prompt
    asking.check_budget(budget)
    if check and no_check:
        raise WrongUsage("Use one of --check and --no-check.")
    error = asking.read_error(error_file) if error_file else None
    with ledger() as conn:
        request = asking.request(
            kind,
            project=project,
            user=user,
            prompt=given,
            key=key,
            busy=busy,
            version=version_id,
            workspace=workspace,
            model=model,
            max_turns=max_turns,
            budget=budget,
            priority=priority,
            previous_session_id=_session(conn, previous_session),
            on_lost=None if on_lost == "fresh" else on_lost,
            branch_from=_session(conn, branch_from),
            template=template,
            callback_url=callback_url,
            check=[] if no_check else _lines(check),
            check_tries=check_tries,
            on_check_failed=on_check_failed,
            race=race,
            race_by=race_by,
            race_models=race_models or None,
            race_seconds=race_seconds,
            error=error,
        )
        job = asking.enqueue(conn, request, operator=operator)
        if wait:
            asking.wait(conn, job, f"{job.id}  {kind}  {job.state}")
            return
        (document,) = documents.listed(conn, [job])
    screen.show(document, [f"{job.id}  {kind}  {job.state}"])


def _lines(given: list[str] | None) -> str | list[str] | None:
    return given[0] if given and len(given) == 1 else given or None


def _session(conn: "Connection", given: str | None) -> str | None:
    return given and naming.session_named(conn, given)
