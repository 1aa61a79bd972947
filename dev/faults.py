"""Workers and a relay for the fault suite, which die, stop or raise where they are told to.

    celery -A dev.faults worker …       python -m dev.faults        (the relay)

The directory BATON_STRIKES has a folder per project, and one named `relay`, with an empty
file per strike: `<number>:<point>:<fault>`. Those of a folder are for one after the other.
A process at the point takes the strike by renaming its file, which happens once however
many are there, and only then does what it says:

    kill   SIGKILL to itself                     pause  SIGSTOP to itself
    term   SIGTERM to the worker: a deploy       error, db_error  an exception
    none   nothing: this time it goes on

BATON_SCRIPTED names kinds of jobs, or how projects' names begin, whose agent is none of the
CLI's, but `dev.deeds`.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from celery import signals

from db import jobs
from db.pool import connection
from dev.deeds import deeds
from worker import points, relay
from worker.app import app
from worker.chain import Attempt
from worker.delivery import WORK, Do

RELAY = "relay"

_place = Path(os.environ.get("BATON_STRIKES", "strikes"))
_scripted = tuple(filter(None, os.environ.get("BATON_SCRIPTED", "").split(",")))
_at_work_for = ""  # the project of this process's job; a pool child has one at a time


def strike(point: str) -> None:
    """Do what was ordered for this point, if that is what comes next here."""
    if _at_work_for and (fault := take(_place / _at_work_for, point)):
        FAULTS[fault]()


def take(folder: Path, point: str) -> str | None:
    """Take the folder's next strike if it is for this point; the fault it asks for."""
    try:
        waiting = sorted(file.name for file in folder.iterdir() if "=" not in file.name)
        _, wanted, fault = waiting[0].split(":")
        if wanted != point:
            return None
        taken = f"{waiting[0]}={os.getpid()}={time.time():.3f}"
        (folder / waiting[0]).rename(folder / taken)
    except (FileNotFoundError, IndexError):
        return None  # nothing is ordered, or another was quicker
    return fault


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _pause() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _term() -> None:
    """A pool child's parent is its worker; the relay has none but the supervisor."""
    os.kill(os.getpid() if _at_work_for == RELAY else os.getppid(), signal.SIGTERM)


def _error() -> None:
    raise RuntimeError("Struck.")


def _db_error() -> None:
    raise psycopg.OperationalError("Struck.")


FAULTS = {
    "kill": _kill,
    "pause": _pause,
    "term": _term,
    "error": _error,
    "db_error": _db_error,
    "none": lambda: None,
}


@signals.task_prerun.connect
def _note_project(kwargs: dict[str, Any] | None = None, **_: Any) -> None:
    global _at_work_for
    _at_work_for, given = "", kwargs or {}
    if "project_id" in given:
        _at_work_for = str(given["project_id"])
    elif "job_id" in given:
        with connection() as conn:
            job = jobs.get(conn, UUID(str(given["job_id"])))
        _at_work_for = job.project_id if job else ""


def _with_deeds(do: Do) -> Do:
    """The same, with the agent of dev/deeds.py where that is wanted."""

    def work(at: Attempt) -> None:
        if at.job.kind in _scripted or at.job.project_id.startswith(_scripted):
            at.agent = deeds(_place / "deeds")
        do(at)

    return work


app.finalize()
app.loader.import_default_modules()
WORK.update({kind: _with_deeds(do) for kind, do in WORK.items()})
points.strike = strike


def main() -> None:
    """The relay."""
    global _at_work_for
    _at_work_for = RELAY
    points.strike = strike
    relay.main()


if __name__ == "__main__":
    main()
