"""The commands that act on a job: cancel, retry, answer."""

from enum import StrEnum
from typing import Annotated

import typer
from psycopg.errors import LockNotAvailable

from db.jobs import jobs, messages
from worker.cli.console import AsJson, app, flag, ledger, screen
from worker.cli.naming import Id, known_job
from worker.cli.pages.jobs import cancelled
from worker.failures.failed import Failed
from worker.reports import jobs as documents
from worker.reports import waits


@app.command("cancel")
def cancel_job(job: Id, _json: AsJson = False) -> None:
    """Cancel a job and what follows in its chain; of one of a race that one alone."""
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
        alone = "racer" in asked.args
        told = [
            j
            for j in jobs.chain(conn, asked.chain_id)
            if j.id in was_open and (j.id == asked.id or not alone)
        ]
        rows = documents.listed(conn, told)
    if not told and after.state != "cancelled":
        raise Failed(f"Job {after.id} has ended already ({after.state}): nothing is cancelled.")
    screen.show(
        {"id": after.id, "state": after.state, "jobs": rows},
        [cancelled(row) for row in rows] or [f"Job {after.id} was cancelled before."],
    )


@app.command("retry")
def try_again(
    job: Id,
    fresh: Annotated[bool, flag("--fresh", "In a fresh session.")] = False,
    key: Annotated[str | None, typer.Option(help="Asking again under it adds nothing.")] = None,
    _json: AsJson = False,
) -> None:
    """Ask for a finished job once more."""
    with ledger() as conn:
        old = known_job(conn, job)
        new = jobs.again(conn, old.id, fresh=fresh, key=key)
        if new is None:
            raise Failed(
                f"Job {old.id} is {old.state}: wait for its end, or `baton cancel` it."
            )
        (row,) = documents.listed(conn, [new])
    screen.show(row, [f"{new.id}  {new.kind}  {new.state}"])


class Choice(StrEnum):
    """What to do about a session that is lost, or about a version that fails its check."""

    RETRY = "retry"
    START_NEW = "start-new"
    KEEP = "keep"
    REWIND = "rewind"
    REPAIR = "repair"


@app.command("answer")
def answer_job(job: Id, choice: Choice, _json: AsJson = False) -> None:
    """Tell a job that asked what to do.

    Of a lost session: retry, start-new. Of a version that fails: keep, rewind, repair.
    """
    from db.sessions import turns

    with ledger() as conn:
        found = known_job(conn, job)
        if not turns.answer(conn, found.id, choice.value.replace("-", "_")):
            raise Failed(f"Job {found.id} {waits.unanswered(found)}: see `baton jobs`.")
        found = known_job(conn, str(found.id))
        (row,) = documents.listed(conn, [found])
    screen.show(row, [f"{found.id}  {found.kind}  {found.state}"])
