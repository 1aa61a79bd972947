"""A relay in a process of its own, and what lives of an attempt."""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from dev.stack.processes import Process, carrying

CHECKOUT = Path(__file__).parents[2]
# A prompt for the stand-in: children in sessions of their own, which ignore a wish to end.
STUBBORN = "run: trap '' TERM; (setsid sleep 301 &); setsid sleep 302 & sleep 60"
WORKER = """
import sys
from uuid import UUID
from config import logging
from tasks.build import do_build
from worker.job.run import run
logging.configure()
run(UUID(sys.argv[1]), do_build)
"""


@contextmanager
def started(*command: str, **env: str) -> Generator[subprocess.Popen[bytes]]:
    """A Python process with this one's settings, and more; killed in the end."""
    around = {**os.environ, "PYTHONPATH": str(CHECKOUT), **env}
    with subprocess.Popen([sys.executable, *command], env=around) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def worker_of_another_time(job_id: UUID, **env: str) -> Generator[subprocess.Popen[bytes]]:
    """A worker for one job whose clock the environment sets (tests/workers.py has others)."""
    with started("-c", WORKER, str(job_id), **env) as process:
        yield process


@contextmanager
def relay(**env: str) -> Generator[subprocess.Popen[bytes]]:
    """The relay, as it is in production."""
    with started("-m", "worker.relay", **env) as process:
        yield process


def living(attempt: UUID) -> list[Process]:
    """What lives of an attempt: the keeper, the agent, all that its tools began."""
    return carrying("BATON_ATTEMPT", str(attempt))
