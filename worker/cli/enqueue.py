"""The command that asks for a job."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from worker.cli import asking, naming
from worker.cli.console import AsJson, app, flag, ledger, screen
from worker.reports import jobs as documents

if TYPE_CHECKING:
    from psycopg import Connection

Kind = Literal["build", "update", "chat-plan", "metadata", "compaction"]
Busy = Literal["enqueue", "reject", "replace", "interrupt"]
OnLost = Literal["fresh", "ask"]
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
        )
        job = asking.enqueue(conn, request, operator=operator)
        if wait:
            asking.wait(conn, job, f"{job.id}  {kind}  {job.state}")
            return
        (document,) = documents.listed(conn, [job])
    screen.show(document, [f"{job.id}  {kind}  {job.state}"])


def _session(conn: "Connection", given: str | None) -> str | None:
    return given and naming.session_named(conn, given)
