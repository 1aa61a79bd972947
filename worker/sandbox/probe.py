"""Whether a box holds on this machine: one is made as for a turn, and tried from inside.

The keeper starts it, with a workspace and a directory of its own where turns have theirs. A
program in it (worker/sandbox/tries.py) says what it could do that no agent may. More to be tried
is a line in TRIES there; what only the filter of system calls forbids is named in BY_FILTER.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from config.settings import settings
from worker.process import identity
from worker.sandbox import home, tries
from worker.sandbox.bounds import EXCEEDED, OTHERS_TOO
from worker.sandbox.leash import KEEPER, Box, cli

PATIENCE = 20.0  # seconds; on an idle machine it takes 0.3
SAID = 200  # characters of what a program says of its failure
OUTLIVE, FORK = "outlive its turn", "fork without end"
# Where no filter can be made these may be open: then they are told, and only `strict` refuses.
BY_FILTER = {
    "become root in a namespace of its own",
    "trace another process",
    "use the kernel's keys",
    "use io_uring",
}
PROCESSES = 256  # that the try may have at a time, beside those of turns that run on this host
MORE = 300  # above what would end it


class Make(Protocol):
    """Makes a box, as for a turn."""

    def __call__(self, workspace: Path, *, own: Path, cli: Path, writable: bool) -> Box: ...


@dataclass(frozen=True, slots=True)
class Line:
    """What an agent may not do, and whether this one could; None: that is not known."""

    what: str
    could: bool | None

    def __str__(self) -> str:
        word = {True: "could", False: "cannot", None: "may be able to"}[self.could]
        return f"an agent {word} {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was tried. `fault` is why boxes made like this are of no use, in a few words."""

    lines: tuple[Line, ...] = ()
    fault: str | None = None

    @property
    def not_held(self) -> list[Line]:
        """What is open, or not known to be closed."""
        return [line for line in self.lines if line.could is not False]


def fault(make: Make, *, owner: int | None) -> str | None:
    """Why boxes made like this are of no use; None if they hold. Raises OSError, as `tried`."""
    return tried(make, owner=owner).fault


def tried(make: Make, *, owner: int | None) -> Report:
    """Make a box like this, and try it from inside.

    Raises OSError where it cannot be tried: a disk is full, the machine is too slow.
    """
    with ExitStack() as places:
        workspace, own, other, ours = (
            _place(places, below)
            for below in (
                settings().workspaces,
                home.turns(),
                settings().workspaces,
                settings().agent_home,
            )
        )
        (canary := ours / "canary").write_text("ours")
        canary.chmod(0o644)
        listening = places.enter_context(socket.create_server(("127.0.0.1", 0)))
        program = Path(cli()).resolve()
        box = make(workspace, own=own, cli=program, writable=True)
        if box.limits:
            box = replace(box, limits={**box.limits, "processes": PROCESSES})
        told = {
            "workspace": str(workspace),
            "own": str(own),
            "other": str(other),
            "canary": str(canary),
            # One that is missing is told of by each turn, and by doctor.
            "cli": str(program) if os.access(program, os.X_OK) else "",
            "owner": owner,
            "pid": os.getpid(),
            "began": str(identity.started(os.getpid())),
            "lock": str(own / "lock"),
            "network": str(Path("/proc/self/ns/net").readlink()),
            "port": listening.getsockname()[1],
            "many": OTHERS_TOO * PROCESSES + MORE,
        }
        with _alone():
            done = _run(box, workspace, told)
        return _judged(done, filtered=bool(box.filter), lives=_locked(own / "lock"))


@contextmanager
def _alone() -> Generator[None]:
    """One at a time on a host: each forks until it may not, and the kernel counts all of a user.
    Who waits in vain goes on, and may be told what is not so."""
    with socket.socket(socket.AF_UNIX) as mark:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                mark.bind("\0baton-box-is-tried")
            except OSError:
                time.sleep(0.05)
            else:
                break
        yield


def _place(places: ExitStack, below: Path) -> Path:
    below.mkdir(parents=True, exist_ok=True)
    made = tempfile.TemporaryDirectory(dir=below.resolve(), prefix=".box-")
    return Path(places.enter_context(made))


def _run(box: Box, workspace: Path, told: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
    program = (Path(tries.__file__).read_text(), json.dumps(told))
    try:
        return subprocess.run(
            [sys.executable, "-I", "-S", str(KEEPER), "-I", "-S", "-c", *program],
            cwd=workspace,
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "BATON_CLI": sys.executable,
                **box.environ,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"the box was not made in {exc.timeout:g} s") from exc


def _judged(done: "subprocess.CompletedProcess[str]", *, filtered: bool, lives: bool) -> Report:
    said: dict[str, Any] = {}
    for name, could in map(json.loads, done.stdout.splitlines()):
        said.setdefault(name, could)
    if "cannot" in said:
        return Report(fault=f"an agent cannot {said['cannot']}")
    said[OUTLIVE] = lives
    if done.returncode == EXCEEDED:
        said.setdefault(FORK, False)  # the keeper ended it
    elif FORK not in said:
        why = done.stderr.strip().rpartition("\n")[2] or f"it ended with {done.returncode}"
        return Report(fault=why[:SAID])
    lines = tuple(Line(what, said.get(what)) for what, _ in tries.TRIES)
    bad = [each for each in lines if each.could and (filtered or each.what not in BY_FILTER)]
    return Report(lines, str(bad[0]) if bad else None)


def _locked(path: Path) -> bool:
    """Whether somebody in the box lives and holds it."""
    if not path.exists():
        return False
    with path.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def works(command: Sequence[str]) -> bool:
    """Whether bubblewrap, with these options, starts anything at all."""
    try:
        done = subprocess.run(
            [*command, "--ro-bind", "/", "/", "--proc", "/proc", "true"],
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
