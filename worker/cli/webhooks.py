"""The command about webhooks that were not delivered."""

from typing import TYPE_CHECKING, Annotated, Any

from worker.cli.console import AsJson, app, flag, ledger, screen
from worker.failures.failed import Failed
from worker.text.units import instant

if TYPE_CHECKING:
    from psycopg import Connection


@app.command("webhooks")
def show_webhooks(
    again: Annotated[bool, flag("--again", "Send what was given up once more.")] = False,
    secret: Annotated[bool, flag("--secret", "Print what receivers verify them with.")] = False,
    _json: AsJson = False,
) -> None:
    """List webhooks that were not delivered, the newest first."""
    if secret:
        _print_secrets()
        return
    with ledger() as conn:
        if again:
            _send_again(conn)
            return
        from db.jobs import webhooks

        rows = webhooks.undelivered(conn)
    screen.show(rows, [_line(row) for row in rows] or ["All were delivered."])


def _print_secrets() -> None:
    from worker.webhooks import signing

    if not (found := signing.secrets()):
        raise Failed("There is no secret: set BATON_CALLBACK_SECRET or BATON_SECRET.")
    screen.show({"secrets": found}, found)


def _send_again(conn: "Connection") -> None:
    from db.jobs import webhooks

    many = webhooks.again(conn)
    screen.show({"again": many}, [f"{many} are sent again."])


def _line(row: dict[str, Any]) -> str:
    if row["state"] == "given_up":
        when = f"given up {instant(row['given_up_at'])}"
    else:
        when = f"next try {instant(row['try_at'])}"
    tries = f"{row['tries']} {'try' if row['tries'] == 1 else 'tries'}"
    return (
        f"{row['chain']}  {row['project']}  {tries}  {when}  {row['error'] or 'not tried yet'}"
    )
