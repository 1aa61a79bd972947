"""Asking for a job at the command line, and watching its chain to the end."""

import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from psycopg import Connection

from db.jobs import jobs
from db.jobs.jobs import Job
from worker import client
from worker.cli import watch
from worker.cli.complaints import Left, WrongUsage
from worker.cli.console import screen
from worker.cli.pages.jobs import chain_end, going_on
from worker.client import enqueue
from worker.failures.failed import Failed
from worker.reports import jobs as documents
from worker.text.units import clean

__all__ = ["check_budget", "enqueue", "follow", "read_error", "read_prompt", "request", "wait"]

ERROR, ERROR_HEAD = 40_000, 10_000  # characters of an error, and of its beginning
CUT = "\n[…]\n"
MOST_READ = 64 * 2**20  # bytes: what no prompt can be as long as
KINDS: dict[str, Any] = {
    "build": client.Build,
    "update": client.Update,
    "repair": client.Repair,
    "chat-plan": client.ChatPlan,
    "metadata": client.Metadata,
    "compaction": client.Compaction,
}


def check_budget(budget: float | None) -> None:
    """Raises WrongUsage for what is no amount."""
    if budget is not None and not math.isfinite(budget):
        raise WrongUsage("--budget must be an amount above 0 in USD.")


def request(kind: str, *, budget: float | None, **given: Any) -> Any:
    """The typed request; what Postgres can judge is left to it."""
    return KINDS[kind](budget=None if budget is None else Decimal(str(budget)), **given)


def read_prompt() -> str:
    """The prompt from stdin. Whether it is too long Postgres says, who knows the limit."""
    given = sys.stdin.buffer.read(MOST_READ)
    try:
        return given.decode()
    except UnicodeDecodeError as exc:
        raise WrongUsage("The prompt on stdin is not UTF-8: convert it.") from exc


def read_error(file: Path) -> str:
    """The error from a file; - is stdin. Its end says most: of one that is too long that is
    taken. Raises WrongUsage."""
    try:
        if str(file) == "-":
            given = sys.stdin.buffer.read(MOST_READ)
        else:
            with file.open("rb") as opened:
                given = opened.read(MOST_READ)
    except OSError as exc:
        raise WrongUsage(f"--error-file {file} cannot be read: {exc.strerror}.") from exc
    text = given.decode(errors="replace").replace("\0", "\ufffd")
    return (
        text
        if len(text) <= ERROR
        else f"{text[:ERROR_HEAD]}{CUT}{text[-(ERROR - ERROR_HEAD) :]}"
    )


def wait(conn: Connection, job: Job, line: str) -> None:
    """Say the job's line at once (with --json on stderr: stdout is the document's), then
    follow its chain."""
    print(line, file=sys.stderr if screen.json else sys.stdout, flush=True)
    follow(conn, job)


def follow(conn: Connection, job: Job) -> None:
    """Follow the job's chain to its end, say what it waits for and what happens, and print how
    it went. Raises Failed unless all is done, Left when nobody wants to watch any more."""
    try:
        _show(watch.follow(conn, job.id))
    except KeyboardInterrupt as exc:
        raise Left(going_on(job.id)) from exc
    chain = documents.listed(conn, jobs.chain(conn, job.chain_id))
    lost = next((one for one in chain if one["state"] != "done" and not one["racer"]), None)
    document = {"chain_id": job.chain_id, "ok": lost is None, "jobs": chain}
    screen.show(document, [chain_end(chain)])
    if lost:
        why = f": {lost['error']}" if lost["error"] else f": see `baton jobs {lost['id']}`."
        raise Failed(f"The {lost['kind']} {lost['id']} is {lost['state']}{why}")


def _show(told: "watch.Story") -> None:
    if screen.json:
        for seen in told:
            if seen.what == watch.WAITS:
                print(clean(watch.plain(seen)), file=sys.stderr, flush=True)
    elif screen.terminal:
        from worker.cli import live_display

        live_display.show(told, live_display.console())
    else:
        for seen in filter(watch.worth_a_line, told):
            print(clean(watch.plain(seen)), flush=True)
