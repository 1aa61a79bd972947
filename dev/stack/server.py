"""One embedded server program: start it, see it answer, stop it, clear up after a crash."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from dev.stack import processes
from dev.stack.processes import Process

START = 60.0  # seconds; a Postgres that replays its log after a crash takes its time
STOP = 5.0  # seconds until a server that was asked to end is made to
LINGER = 1.0  # seconds for one whose parent was killed: the kernel has told it


class ServiceError(Exception):
    """A service cannot be had; the text says why and what to do."""


@dataclass
class Server:
    """A server program of ours: it can be stopped, killed and started again."""

    name: str
    url: str = field(repr=False)
    command: list[str]
    programs: tuple[str, ...]  # what the kernel may call it
    goodbye: signal.Signals  # what it takes as a wish to end quickly and cleanly
    answer: Callable[[], object]  # raises while the server is not ready
    data: Path
    log: Path
    plain_url: str = field(
        default="", repr=False
    )  # of Redis: that of the user for plain producers
    wanted: bool = False  # false: it was stopped on purpose
    _popen: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> Process | None:
        """The server's process, or None when it does not run."""
        return processes.look(self._popen.pid) if self._popen else None

    def start(self) -> None:
        """Start it and wait until it answers. Raises ServiceError."""
        self._clear()
        if self._popen:
            self._popen.wait()  # it has died; nobody has asked how
        self.wanted = True
        processes.trim(self.log)
        with self.log.open("ab") as log:
            self._popen = processes.spawn(
                self.command, env={**os.environ, "LC_ALL": "C"}, cwd=self.data, output=log
            )
        self._await()

    def stop(self) -> None:
        """Stop it cleanly; no process of it is left."""
        self.wanted = False
        self._end()

    def _end(self) -> None:
        for number in (self.goodbye, signal.SIGQUIT, signal.SIGKILL):
            if self._popen and self._popen.poll() is None:
                self._popen.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._popen.wait(STOP)
        self._popen = None

    def kill(self) -> None:
        """End it as a power cut would; it stays down until `start`."""
        self.wanted = False
        if self._popen:
            self._popen.kill()
            self._popen.wait()
        self._clear()

    def _await(self) -> None:
        assert self._popen
        deadline = time.monotonic() + START
        while True:
            try:
                self.answer()
            except (psycopg.OperationalError, redis.RedisError) as exc:
                if self._popen.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                self._end()  # still wanted: whoever looks after it tries again
                raise ServiceError(
                    f"The embedded {self.name} does not start: {_last_line(self.log)} "
                    f"(more in {self.log})"
                ) from exc
            return

    def _clear(self) -> None:
        """End what a killed run left at work on our data; the lock says nobody owns it."""
        left = processes.working_in(self.data, self.programs)
        if not processes.gone(left, within=LINGER):
            processes.kill(left, self.goodbye)
        if not processes.gone(left, within=STOP):
            processes.kill(left, signal.SIGKILL)
        processes.gone(left, within=STOP)
        (self.data / "postmaster.pid").unlink(missing_ok=True)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"
