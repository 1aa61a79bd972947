"""Asking for a job at the command line, and waiting for its chain."""

import math
import sys
from decimal import Decimal
from typing import Any

from psycopg import Connection

from config.settings import settings
from db import jobs, workers
from db.jobs import Job
from worker import client, pages, watch
from worker.client import enqueue
from worker.complaints import Failed, WrongUsage
from worker.screen import Screen, clean

__all__ = ["enqueue", "read_prompt", "request", "wait"]

MOST_READ = 64 * 2**20  # bytes: what no prompt can be as long as
KINDS: dict[str, Any] = {
    "build": client.Build,
    "update": client.Update,
    "chat-plan": client.ChatPlan,
    "metadata": client.Metadata,
    "compaction": client.Compaction,
}


def request(kind: str, *, budget: float | None, **given: Any) -> Any:
    """The typed request; what Postgres can judge is left to it."""
    if budget is not None and not math.isfinite(budget):
        raise WrongUsage("--budget must be an amount above 0 in USD.")
    return KINDS[kind](budget=None if budget is None else Decimal(str(budget)), **given)


def read_prompt() -> str:
    """The prompt from stdin. Whether it is too long Postgres says, who knows the limit."""
    given = sys.stdin.buffer.read(MOST_READ)
    try:
        return given.decode()
    except UnicodeDecodeError as exc:
        raise WrongUsage("The prompt on stdin is not UTF-8: convert it.") from exc


def wait(conn: Connection, job: Job, screen: Screen) -> None:
    """Follow the chain to its end and print how it went. Raises Failed unless all is done."""
    if not workers.online(conn, silent_after=settings().worker_silent_after):
        print("No worker is online, the job waits for one: start `baton up`.", file=sys.stderr)  # noqa: T201
    told = watch.follow(conn, job.id)
    if screen.json:
        list(told)
    elif screen.terminal:
        from rich.console import Console

        from worker import live

        live.show(told, Console(highlight=False))
    else:
        for seen in filter(watch.worth_a_line, told):
            print(clean(watch.plain(seen)), flush=True)  # noqa: T201
    chain = jobs.chain(conn, job.chain_id)
    lost = next((one for one in chain if one.state != "done"), None)
    document = {
        "chain_id": job.chain_id,
        "ok": lost is None,
        "jobs": [pages.job_document(one) for one in chain],
    }
    screen.show(document, [pages.chain_end(chain)])
    if lost:
        why = f": {lost.error}" if lost.error else f": see `baton jobs {lost.id}`."
        raise Failed(f"The {lost.kind} {lost.id} is {lost.state}{why}")
