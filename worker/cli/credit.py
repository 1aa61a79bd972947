"""`baton credit`: the tokens that an account's voice sessions may still use."""

from typing import Annotated

import typer

from worker.cli.complaints import WrongUsage
from worker.cli.console import AsJson, app, ledger, screen
from worker.failures.failed import Failed
from worker.text.units import number

MOST = 10**15  # tokens at a time: more is a slip


@app.command("credit")
def show_credit(
    account: Annotated[str, typer.Argument(help="Whose it is, as in `baton key create`.")],
    set_to: Annotated[
        int | None, typer.Option("--set", help="From now on it has so many tokens left.")
    ] = None,
    add: Annotated[
        int | None, typer.Option("--add", help="So many more, used after the others.")
    ] = None,
    unlimited: Annotated[
        bool, typer.Option("--unlimited", help="It has no limit any more.")
    ] = False,
    _json: AsJson = False,
) -> None:
    """Show what voice may use of an account's tokens, or give it more."""
    from db.live import voice

    if sum((set_to is not None, add is not None, unlimited)) > 1:
        raise WrongUsage("Give one of --set, --add and --unlimited.")
    if set_to is not None and not 0 <= set_to <= MOST:
        raise WrongUsage(f"--set is a number of tokens, from 0 to {MOST}.")
    if add is not None and not 1 <= add <= MOST:
        raise WrongUsage(f"--add is a number of tokens, from 1 to {MOST}.")
    with ledger() as conn:
        found = voice.credit(
            conn, account, tokens=set_to, add=add or 0, unlimited=unlimited
        ) if _known(account) else None  # fmt: skip
    if found is None:
        raise Failed(
            f"There is no account {account!r}: `baton key create --account NAME` makes one."
        )
    if found.tokens is None:
        line = f"{account} has no limit."
        if add:
            line += (
                f" What was added counts once it has one: baton credit {account} --set NUMBER."
            )
    else:
        line = (
            f"{account} has {number(found.tokens + found.topup)} tokens left:"
            f" {number(found.tokens)}, then {number(found.topup)} that were added."
        )
    told = {"account": account, "token_remaining": found.tokens, "topup_remaining": found.topup,
            "unlimited": found.tokens is None}  # fmt: skip
    screen.show(told, [line])


def _known(account: str) -> bool:
    """Whether Postgres can be asked for it."""
    return 0 < len(account) <= 200 and account.isprintable()
