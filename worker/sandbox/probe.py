"""Whether a box holds on this machine: one is made as for a turn, and tried from inside.

The keeper starts it, with a workspace and a directory of its own where turns have theirs. A
program in it says what it could do that no agent may; what it wrote is looked for outside.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from config.settings import settings
from worker.sandbox import home
from worker.sandbox.leash import KEEPER, Box, cli

PATIENCE = 20.0  # seconds; on an idle machine it takes 0.1
WORKS = "works"
SAID = 200  # characters of what a program says of its failure
# Arguments: the workspace, the turn's own directory, another workspace, the CLI, the uid.
INSIDE = r"""
exec 2>/dev/null
can() { echo "an agent could $1"; }
cannot() { echo "an agent cannot $1"; }
true > "$1/in" || cannot "write its workspace"
true > "$2/in" || cannot "write its own directory"
true > /tmp/in || cannot "write /tmp"
[ -z "$4" ] || [ -x "$4" ] || cannot "run $4: make it and its directories readable by all"
[ -z "$5" ] || [ "$(id -u)" = "$5" ] || can "stay the worker's user"
true > /baton-was-here && rm /baton-was-here && can "write outside of its workspace"
mkdir -p "$3"; true > "$3/in"
head -c 1 < /etc/shadow > /dev/null && can "read /etc/shadow"
true >> /proc/sys/kernel/core_pattern && can "write /proc/sys/kernel/core_pattern"
umount -l /tmp && can "unmount"
umount -l "$1" && can "unmount"
mount -t tmpfs none /mnt && can "mount"
mount -o remount,bind,rw / && can "make the disk writable"
echo works
"""


class Make(Protocol):
    """Makes a box, as for a turn."""

    def __call__(self, workspace: Path, *, own: Path, cli: Path, writable: bool) -> Box: ...


def fault(make: Make, *, owner: int | None) -> str | None:
    """Why boxes made like this are of no use, in a few words; None if they hold.

    Raises OSError where it cannot be tried: a disk is full, the machine is too slow.
    """
    with ExitStack() as places:
        workspace, own, other = (
            _place(places, below)
            for below in (settings().workspaces, home.turns(), settings().workspaces)
        )
        program = Path(cli())
        made = make(workspace, own=own, cli=program, writable=True)
        # One that is missing is told of by each turn, and by doctor.
        there = str(program) if os.access(program, os.X_OK) else ""
        told = _tried(made, workspace, own, other, there, "" if owner is None else owner)
        return "an agent could write another's workspace" if any(other.iterdir()) else told


def _place(places: ExitStack, below: Path) -> Path:
    below.mkdir(parents=True, exist_ok=True)
    made = tempfile.TemporaryDirectory(dir=below.resolve(), prefix=".box-")
    return Path(places.enter_context(made))


def _tried(made: Box, workspace: Path, *arguments: object) -> str | None:
    words = [str(each) for each in (workspace, *arguments)]
    path = os.environ.get("PATH", os.defpath)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(KEEPER), "-c", INSIDE, "sh", *words],
            cwd=workspace,
            env={"PATH": path, "BATON_CLI": "/bin/sh", **made.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise TimeoutError(f"the box was not made in {exc.timeout:g} s") from exc
    said = [line for line in done.stdout.splitlines() if line != WORKS]
    if said:
        return said[0]
    if WORKS in done.stdout:
        return None
    return (done.stderr.strip().rpartition("\n")[2] or f"it ended with {done.returncode}")[
        :SAID
    ]


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
