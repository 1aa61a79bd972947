"""A worker for one job in a process of its own, to be cut off, stopped and killed.

It is forked from a process that has loaded everything (what a worker loads costs two seconds of
a core), and has this process's environment and directory.
"""

import multiprocessing
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from uuid import UUID

import psycopg

from config import logging
from config.settings import settings
from db.jobs import jobs
from tests.running import DO
from worker.app import app
from worker.job.run import run
from worker.process import crash_points, identity

TRIES = 50  # at a job: a relay may hold its row just then, and would send another message
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.workers"])


class Worker:
    """The process, as subprocess.Popen has it."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.pid = process.pid or 0

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for a signal."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"the worker lives after {timeout} s"
        return self._process.exitcode


@contextmanager
def worker(job_id: UUID, point: str = "", **env: str) -> Generator[Worker]:
    """A process that runs the job; SIGKILL comes to it at that point, or as the block ends."""
    process = FORKED.Process(target=_work, args=({**os.environ, **env}, job_id, point))
    process.start()
    try:
        yield Worker(process)
    finally:
        process.kill()
        process.join()


def _work(env: dict[str, str], job_id: UUID, point: str) -> None:
    os.environ.clear()
    os.environ.update(env)
    settings.cache_clear()
    app.conf.update(broker_url=settings().redis_url.get_secret_value())
    identity.WORKER_ID = f"{identity.boot()}/{os.getpid()}"
    crash_points.strike = lambda name: (
        os.kill(os.getpid(), signal.SIGKILL) if name == point else None
    )
    logging.configure()
    with psycopg.connect(settings().database_url.get_secret_value(), autocommit=True) as conn:
        job = jobs.get(conn, job_id)
        assert job
        for _ in range(TRIES):
            run(job_id, DO[job.kind])
            now = jobs.get(conn, job_id)
            if now is None or now.attempts != job.attempts or now.ended:
                break
