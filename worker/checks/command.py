"""One command of a check, run on a turn's files: in the kind of box that the agent has, with no
model, no key, no network and no terminal, and within limits of its own.

    worker ──feeds──► keeper ──► [box ──►] python ──► sh -c COMMAND

The keeper (worker/sandbox/keeper.py) ends it with its lease, as it does an agent. Whether the box
came to be is seen by a word that is printed before the command begins.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO
from uuid import UUID, uuid4

from config.settings import settings
from worker.checks.output import Kept, failure
from worker.failures.errors import AgentFailed, Stopped
from worker.process import crash_points, identity
from worker.sandbox.bounds import EXCEEDED
from worker.sandbox.box import box
from worker.sandbox.home import own_directory, unwritable
from worker.sandbox.leash import KEEPER, LINGER, Box, Leash
from worker.workspace import git, removal

# Prints the word, and becomes the command; CI says to many programs that nobody looks on.
BEGIN = (
    "import os, sys; os.dup2(1, 2); os.write(1, sys.argv[1].encode());"
    " os.environ['CI'] = 'true'; os.execv('/bin/sh', ['sh', '-c', sys.argv[2]])"
)
POLL = 0.05  # seconds
CHUNK = 64 * 1024  # bytes
SIGNALS = range(129, 193)  # exit codes by which a shell, and the keeper, tell of a signal
TIMEOUT, LIMIT = "timeout", "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended. Neither `exit_status` nor `signal`: it was ended for a `reason`."""

    command: str
    exit_status: int | None = None
    signal: int | None = None
    reason: str | None = None
    duration_ms: int
    head: str
    tail: str
    output_bytes: int

    @property
    def passed(self) -> bool:
        return self.exit_status == 0

    @property
    def failure(self) -> str | None:
        """A digest of how it failed; None: it passed."""
        ending = f"{self.exit_status} {self.signal} {self.reason}"
        return None if self.passed else failure(self.command, ending, self.head, self.tail)


@dataclass(frozen=True, slots=True)
class Hold:
    """What of the job's lease a command needs: a leash to run on, a sign that all is well, and
    why to stop."""

    turn: Callable[[Box], AbstractContextManager[Leash]]
    alive: Callable[[], None]
    reason: Callable[[], str | None]
    attempt: UUID


def run(command: str, cwd: Path, hold: Hold) -> Ended:
    """Run the command to its end, or to that of its time. Raises Stopped, and AgentFailed where
    no box can be made for it."""
    own = own_directory(uuid4())
    try:
        own.mkdir(parents=True)
    except OSError as exc:
        raise unwritable(exc) from exc
    try:
        shell = Path(sys.executable)
        around = box(cwd, own=own, cli=shell, writable=True, networked=False)
        if around.limits:
            bounds = {**around.limits, "memory": settings().check_memory}
            around = replace(around, limits=bounds)
        with hold.turn(around) as leash:
            return _Run(command, cwd, own, hold, leash).to_its_end()
    finally:
        removal.discard(own)


class _Run:
    """A command while it runs."""

    def __init__(self, command: str, cwd: Path, own: Path, hold: Hold, leash: Leash) -> None:
        self.command, self.hold, self.leash = command, hold, leash
        self.word = f"{uuid4()}\n".encode()
        self.kept = Kept(settings().check_output)
        self.began, self.first = False, b""
        self.keeper_said = Kept(CHUNK)
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", str(KEEPER)),
                *("-I", "-S", "-c", BEGIN, self.word.decode(), command),
            ],
            cwd=cwd,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": os.environ.get("HOME", str(own)),
                "LANG": os.environ.get("LANG", "C.UTF-8"),
                "TMPDIR": str(own),
                "BATON_ATTEMPT": str(hold.attempt),
                **git.for_agents(cwd),
                **leash.environ,
                "BATON_CLI": sys.executable,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def to_its_end(self) -> Ended:
        readers = [
            threading.Thread(target=_read, args=(pipe, take), daemon=True)
            for pipe, take in (
                (self.process.stdout, self._hear),
                (self.process.stderr, self.keeper_said.add),
            )
        ]
        for reader in readers:
            reader.start()
        began = time.monotonic()
        late = self._wait()
        took = int((time.monotonic() - began) * 1000)
        for reader in readers:
            reader.join(LINGER)
        for pipe, reader in zip(
            (self.process.stdout, self.process.stderr), readers, strict=True
        ):
            if pipe and not reader.is_alive():
                pipe.close()
        if reason := self.hold.reason():
            raise Stopped(reason)
        if not self.began and not late:
            why = self.keeper_said.head.strip() or f"it ended with {self.process.returncode}"
            raise AgentFailed("box_refused", f"The box of a check did not begin: {why[-300:]}.")
        return self._ended(took, late=late)

    def _wait(self) -> bool:
        """Wait for its end; whether its time was over before."""
        allowed = min(settings().check_seconds, settings().turn_timeout).total_seconds()
        end, late = identity.now() + allowed, False
        seen = False
        while self.process.poll() is None:
            if self.began and not seen:
                seen = True
                crash_points.reach("check.began")
            self.hold.alive()  # its own time is what counts
            if not late and identity.now() > end:
                late = True
                self.leash.end()
            time.sleep(POLL)
        return late

    def _hear(self, data: bytes) -> None:
        if self.began:
            self.kept.add(data)
            return
        self.first += data
        if self.word in self.first:
            self.began = True
            self.kept.add(self.first.partition(self.word)[2])

    def _ended(self, took: int, *, late: bool) -> Ended:
        code = self.process.returncode
        limited = code == EXCEEDED and self.keeper_said.head.startswith("keeper:")
        reason = TIMEOUT if late else LIMIT if limited else None
        signal = code - 128 if code in SIGNALS and reason is None else None
        return Ended(
            command=self.command,
            exit_status=code if reason is None and signal is None else None,
            signal=signal,
            reason=reason,
            duration_ms=took,
            head=self.kept.head,
            tail=self.kept.tail,
            output_bytes=self.kept.total,
        )


def _read(pipe: IO[bytes] | None, take: Callable[[bytes], None]) -> None:
    assert pipe
    while data := os.read(pipe.fileno(), CHUNK):
        take(data)
