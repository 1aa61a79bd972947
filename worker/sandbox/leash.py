"""The worker's end of the keeper's feeding line.

A leash is made before the agent is spawned and closed when its turn is over. Each
renewal of the lease feeds the keeper with the moment until which it may go on, by the
clock of both (host.now); a worker that is stopped, cut off or dead feeds nothing, and
the keeper ends the agent.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from config.settings import settings
from worker.process import identity
from worker.sandbox import groups, home
from worker.sandbox.bounds import Bounds

GONE = b"0"  # what a keeper says in place of a pid when all below it has ended
LINGER = 8.0  # seconds that a keeper may take to end all below it: its grace, and more
KEEPER = Path(__file__).with_name("keeper.py")


@dataclass(frozen=True, slots=True)
class Box:
    """The command that the keeper puts before the CLI's; empty where there is no box. It is told
    of an open file with the `filter` of system calls, if there is one. If `owner` is set the agent
    has this uid, and the keeper hands it the `places`. The `limits` hold without a box too. The
    `bridge` to the network comes next before the CLI, in the box or without one."""

    command: tuple[str, ...] = ()
    filter: str | None = None
    owner: int | None = None
    places: tuple[str, ...] = ()
    limits: Bounds | None = None
    bridge: tuple[str, ...] = ()

    @property
    def environ(self) -> dict[str, str]:
        """What tells the keeper of it."""
        return {"BATON_BOX": json.dumps(asdict(self))}


NO_BOX = Box()


class Leash:
    """The listening end; `environ` is what the keeper is to be started with."""

    def __init__(self, name: str, until: float, box: Box = NO_BOX) -> None:
        self._name = f"baton-{name}-{os.getpid()}"
        self._until = until
        self._box = box
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(f"\0{self._name}")  # abstract: no file to be left behind
        self._listener.listen(4)
        self._listener.setblocking(False)
        self._lines: list[socket.socket] = []
        self._keepers: list[int] = []
        self._ended = 0  # keepers that have said so
        self.agent_pid: int | None = None  # once the keeper has said it

    @property
    def environ(self) -> dict[str, str]:
        """The keeper's own variables; none of them reaches the agent."""
        return {
            "BATON_CLI": cli(),
            "BATON_KEEPER": self._name,
            "BATON_UNTIL": f"{self._until:.3f}",
            **self._box.environ,
        }

    def feed(self, until: float) -> None:
        """Let the keeper go on until that moment."""
        self._hear()
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.sendall(f"{until:.3f}\n".encode())

    def end(self) -> None:
        """Ask the agent to end: it writes down where it was, and is killed if it takes long."""
        self._hear()
        for keeper in self._keepers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGTERM)

    def close(self) -> None:
        """Let go, and wait for the keeper: while it lives it kills what is below it."""
        self._hear()
        self._listener.close()
        for line in self._lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_WR)
        end = time.monotonic() + LINGER
        while any(map(identity.started, self._keepers)) and time.monotonic() < end:
            time.sleep(0.01)
        self._hear()  # its last word
        for line in self._lines:
            line.close()
        if self._keepers:
            groups.end_those_of_the_dead()

    def gone(self) -> bool:
        """Whether nothing is left of the agent, by its keeper's word; without a keeper none began.
        Heard when the leash was closed: one that ends later, or is killed, has not said it."""
        return self._ended == len(self._keepers)

    def _hear(self) -> None:
        """Take up the keeper that has called, and read which process its agent is.

        Only a child of ours is one: the name is known to the agent too. Called from the
        lease's thread, it may find that all is closed just now.
        """
        with contextlib.suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                line.setblocking(False)
                credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                pid: int = struct.unpack("3i", credentials)[0]
                if identity.parent(pid) != os.getpid():
                    line.close()
                    continue
                self._keepers.append(pid)
                self._lines.append(line)
        for line in self._lines:
            with contextlib.suppress(OSError):
                for said in line.recv(64).split():
                    if said == GONE:
                        self._ended += 1
                    else:
                        self.agent_pid = int(said)


def cli() -> str:
    """The agent's program: the one that is set, else the one bundled with the SDK."""
    wanted = settings().cli_path or _bundled()
    return shutil.which(wanted) or wanted


@cache
def _bundled() -> str:
    """Found without importing the SDK, which costs more than all else that a process loads."""
    found = importlib.util.find_spec("claude_agent_sdk")
    assert found
    assert found.origin
    return str(Path(found.origin).with_name("_bundled") / "claude")


def launcher() -> Path:
    """A program that starts the keeper, for the SDK to call as if it were the CLI."""
    text = f'#!/bin/sh\nexec "{sys.executable}" -I -S "{KEEPER}" "$@"\n'
    return home.put("keeper", text, mode=0o755)
