"""Where a process of the fault suite dies, stops or raises, as it is told to; and its relay.

    python -m dev.faults.strikes        the relay (dev/faults/worker.py has the workers)

The directory BATON_STRIKES has a folder per project, and one named `relay`, with an empty
file per strike: `<number>:<point>:<fault>`. Those of a folder are for one after the other.
A process at the point takes the strike by renaming its file, which happens once however
many are there, and only then does what it says:

    kill   SIGKILL to itself                     pause  SIGSTOP to itself
    term   SIGTERM to the worker: a deploy       error, db_error  an exception
    none   nothing: this time it goes on
"""

import os
import signal
import time
from pathlib import Path

import psycopg

from worker import relay
from worker.process import crash_points

RELAY = "relay"
PLACE = Path(os.environ.get("BATON_STRIKES", "strikes"))

# The project of this process's job (a pool child has one at a time), or RELAY.
_at_work_for = ""


def begin_work(whose: str) -> None:
    """From now on what is ordered for that project is for this process."""
    global _at_work_for
    _at_work_for = whose


def strike(point: str) -> None:
    """Do what was ordered for this point, if that is what comes next here."""
    if _at_work_for and (fault := take(PLACE / _at_work_for, point)):
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


def main() -> None:
    """The relay."""
    begin_work(RELAY)
    relay.main()


crash_points.strike = strike

if __name__ == "__main__":
    main()
