"""`baton delete`: all that is there of a project or a user, for good, with a receipt."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from db.operations import receipts
from db.operations.receipts import Receipt
from worker.cli.complaints import WrongUsage
from worker.cli.console import AsJson, app, flag, ledger, screen
from worker.cli.pages.layout import Facts, Page, Table
from worker.failures.failed import Failed
from worker.text.units import number

if TYPE_CHECKING:
    from worker.cleanup.deletion import Deleted  # slow to import

MOST = 200  # projects or directories that are named

What = Literal["project", "user"]


@app.command("delete")
def delete_all(
    what: Annotated[What, typer.Argument()],
    subject: Annotated[str, typer.Argument(metavar="ID", help="Of the project or the user.")],
    yes: Annotated[bool, flag("--yes", "Do not ask.")] = False,
    _json: AsJson = False,
) -> None:
    """Delete all there is of a project or a user, for good."""
    from worker.cleanup import deletion

    with ledger() as conn:
        rows = deletion.found(conn, what, subject)
        if not rows and not receipts.newest(conn, what, subject, is_open=True):
            _show_earlier(what, subject, receipts.newest(conn, what, subject))
            return
        if not yes:
            _ask(what, subject, rows)
        done = deletion.delete(conn, what, subject)
    screen.show(_document(what, subject, done), _page(what, subject, done))


def _ask(what: What, subject: str, rows: dict[str, int]) -> None:
    if not sys.stdin.isatty():
        raise WrongUsage("A deletion cannot be taken back: say --yes if it is meant.")
    told = ", ".join(f"{number(n)} {name}" for name, n in rows.items()) or "what is left"
    if not typer.confirm(f"Delete {what} {subject} for good ({told})?", err=True):
        raise Failed("Nothing was deleted.")


def _show_earlier(what: What, subject: str, earlier: Receipt | None) -> None:
    """Deleted before is as was asked; never heard of is not."""
    if earlier is None:
        raise Failed(f"There is nothing of {what} {subject}: nothing was deleted.")
    told = [f"There is nothing of {what} {subject}: it was deleted before.", _facts(earlier)]
    screen.show({**_told(what, subject, earlier), "deleted_before": True}, told)


def _told(what: What, subject: str, receipt: Receipt) -> dict[str, Any]:
    return {
        "receipt": receipt.id,
        "what": what,
        "id": subject,
        "began_at": receipt.began_at,
        "ended_at": receipt.ended_at,
        "host": receipt.host,
        "rows": receipt.rows,
        "redis_keys": receipt.keys,
        "files": receipt.files,
        "remote_refs": receipt.remote_refs,
    }


def _document(what: What, subject: str, done: "Deleted") -> dict[str, Any]:
    return {
        **_told(what, subject, done.receipt),
        **_some("projects", done.projects),
        **_some("directories_removed", [str(place) for place in done.places.removed]),
        **_some("directories_not_on_this_host", [str(place) for place in done.places.not_here]),
        **_some(
            "directories_left",
            [{"path": str(place), "why": why} for place, why in done.places.left],
        ),
        **_some("projects_not_on_the_server", done.places.not_on_server),
    }


def _some(name: str, things: list[Any]) -> dict[str, Any]:
    """The first of them, and how many there are."""
    return {name: things[:MOST], f"{name}_count": len(things)}


def _each(sentence: str, things: Sequence[object], *more: Sequence[object]) -> list[str]:
    """The sentence for each of the first, and how many more there are."""
    told = [sentence.format(*each) for each in list(zip(things, *more, strict=True))[:MOST]]
    return told + ([f"And {len(things) - MOST} more."] if len(things) > MOST else [])


def _facts(receipt: Receipt) -> Facts:
    return Facts(
        [
            ("receipt", receipt.id),
            ("ended", receipt.ended_at),
            ("host", receipt.host),
            ("rows", number(sum(receipt.rows.values()))),
            ("Redis keys", number(receipt.keys)),
            ("files", number(receipt.files)),
            ("refs on the server", number(receipt.remote_refs)),
        ]
    )


def _page(what: What, subject: str, done: "Deleted") -> Page:
    places = done.places
    return [
        f"Deleted: {what} {subject}"
        + (f" with {len(done.projects)} projects." if what == "user" else "."),
        _facts(done.receipt),
        Table(
            ("table", "rows"),
            sorted(done.receipt.rows.items()),
            "The ledger had no rows.",
            right=frozenset({"rows"}),
            title="Rows deleted",
        ),
        *_each("Removed {}.", places.removed),
        *_each(
            "Not on this host: {}. If it is at its usual place on another, that host removes"
            " it by itself; else remove it there.",
            places.not_here,
        ),
        *_each(
            "Left: {}, since {}.",
            [place for place, _ in places.left],
            [why for _, why in places.left],
        ),
        *_each(
            "The server of BATON_WORKSPACE_REMOTE has no repository of project {}, or"
            " does not show it: nothing was removed there.",
            places.not_on_server,
        ),
    ]
