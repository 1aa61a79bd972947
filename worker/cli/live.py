"""The commands of the live side: API keys, the address of a project's page, who is connected."""

from typing import Annotated, Literal

import typer

from worker.cli.complaints import WrongUsage
from worker.cli.console import AsJson, app, ledger, screen
from worker.cli.moments import Until
from worker.failures.failed import Failed
from worker.text.units import instant


@app.command("key")
def keys_of_accounts(
    act: Annotated[Literal["create", "list", "revoke"], typer.Argument()],
    number: Annotated[int | None, typer.Argument(help="Which to revoke, as listed.")] = None,
    account: Annotated[str | None, typer.Option(help="Whose key it is.")] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may; more than once. Else: jobs.")
    ] = None,
    until: Until = None,
    _json: AsJson = False,
) -> None:
    """Make an API key, list keys, or revoke one."""
    from db.live import keys

    with ledger() as conn:
        if act == "create":
            if not account or not account.isprintable() or len(account) > 200:
                raise WrongUsage("Say whose key it is: `baton key create --account NAME`.")
            if wrong := set(scope or ()) - set(keys.SCOPES):
                raise WrongUsage(
                    f"There is no scope {min(wrong)}: use {', '.join(keys.SCOPES)}."
                )
            try:
                key, row = keys.create(conn, account, name, list(scope or ["jobs"]), until)
            except keys.Past:
                raise Failed("A key must end later than now: --until 90d, or a date.") from None
            told = {"id": row.id, "account": account, "scopes": row.scopes}
            screen.show({"key": key, **told, "expires_at": row.expires_at}, [key])
        elif act == "revoke":
            if number is None:
                raise WrongUsage("Say which one: `baton key revoke NUMBER`.")
            gone = keys.revoke(conn, number)
            if gone is None:
                raise Failed("There is no key of that number: look at `baton key list`.")
            screen.show({"id": gone.id, "account": gone.account_id, "revoked": True},
                        [f"Key {gone.id} of {gone.account_id} counts no more."])  # fmt: skip
        else:
            rows = keys.known(conn, account)
            told = [
                {
                    "id": row.id,
                    "account": row.account_id,
                    "name": row.name,
                    "scopes": row.scopes,
                    "created_at": row.created_at,
                    "last_used_at": row.last_used_at,
                    "revoked_at": row.revoked_at,
                    "expires_at": row.expires_at,
                    "expired": row.expired,
                }
                for row in rows
            ]
            screen.show(told, [_line(row) for row in rows] or ["There are no keys."])


def _line(row: object) -> str:
    from db.live.keys import Key

    assert isinstance(row, Key)
    state = f"used {instant(row.last_used_at)}" if row.last_used_at else "never used"
    if row.revoked_at:
        state = "revoked"
    elif row.expires_at:
        state += f", {'ended' if row.expired else 'until'} {instant(row.expires_at)}"
    return f"{row.id:>5}  {row.account_id}  {','.join(row.scopes)}  {row.name or '–'}  {state}"


@app.command("open")
def open_page(
    project: Annotated[str, typer.Argument()],
    user: Annotated[str | None, typer.Option(help="For whom, if the project is new.")] = None,
    _json: AsJson = False,
) -> None:
    """Print the address of a project's page."""
    from config.settings import settings
    from db.live import owners
    from db.projects import projects
    from worker.failures.refused import refusing
    from worker.live.tickets import from_settings

    with ledger() as conn:
        found = projects.get(conn, project)
        if found is None and user is not None:
            with refusing():
                conn.execute(owners.NAMES, (project, user))
    if found is not None and user not in (None, found.user_id):
        raise Failed(f"Project {project} belongs to another user.")
    who = found.user_id if found else user
    if who is None:
        raise Failed(f"There is no project {project}: say whose it will be with --user.")
    ticket, until = from_settings().ticket(project, who)
    base = settings().web_url or f"http://{settings().web_host}:{settings().web_port}"
    url = f"{base.rstrip('/')}/app/{project}#ticket={ticket}"
    screen.show({"url": url, "expires_at": until}, [url])


@app.command("live")
def show_live(
    project: Annotated[str | None, typer.Option(help="Of this project.")] = None,
    _json: AsJson = False,
) -> None:
    """List who is connected to a gateway, or was lately."""
    from db.live import connections

    with ledger() as conn:
        rows = connections.known(conn, project)
    lines = [
        f"{row['status']:<12}  {row['project_id']}  {row['user_id']}  since {instant(row['created_at'])}"
        f"  at {row['gateway']}"
        for row in rows
    ]
    screen.show(rows, lines or ["Nobody is connected."])
