"""Processes as the kernel shows them: known by pid and start time, bound to their parent.

A pid alone names nobody. It is used again, and a dead process that nobody has waited
for (a zombie) still answers `kill -0`. So a process is alive only when /proc shows it
with the same start time and in a state other than Z.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PROC = Path("/proc")
_owned = set[int]()
PORTS = (20_000, 32_000)  # below the range the kernel hands out for outgoing connections
LOOPBACK = "127.0.0.1"
LOG_LIMIT = 10 * 2**20  # bytes; a longer log is begun anew at the next start


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    started: int  # clock ticks since the machine began


def look(pid: int) -> Process | None:
    """The process of that pid, or None when there is none or only a zombie."""
    fields = _stat(pid)
    return Process(pid, int(fields[19])) if fields and fields[0] not in "ZX" else None


def alive(process: Process) -> bool:
    return look(process.pid) == process


def descendants(pid: int) -> list[Process]:
    """All live processes below `pid`; those whose parent died are not below it any more."""
    children: dict[int, list[int]] = {}
    for other in pids():
        if fields := _stat(other):
            children.setdefault(int(fields[1]), []).append(other)
    found, ahead = list[Process](), children.get(pid, [])
    while ahead:
        child = ahead.pop()
        ahead += children.get(child, [])
        if process := look(child):
            found.append(process)
    return found


def carrying(name: str, value: str) -> list[Process]:
    """All live processes that were started with `name=value` in their environment."""
    mark = f"{name}={value}".encode()
    return [
        process
        for pid in pids()
        if mark in _read(PROC / str(pid) / "environ").split(b"\0")
        if (process := look(pid))
    ]


def working_in(directory: Path, programs: Iterable[str]) -> list[Process]:
    """The live processes of these programs whose working directory is `directory`."""
    names = {program.encode() for program in programs}
    found = list[Process]()
    for pid in pids():
        with suppress(OSError):
            there = Path(f"/proc/{pid}/cwd").readlink() == directory
            if there and _read(PROC / str(pid) / "comm").strip() in names:
                found += filter(None, [look(pid)])
    return found


def pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdecimal())


def kill(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send the signal to those that are still who they were."""
    for process in processes:
        if alive(process):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)


def gone(processes: Iterable[Process], *, within: float) -> bool:
    """Whether all of them have ended, waiting for it up to `within` seconds."""
    deadline = time.monotonic() + within
    while any(alive(process) for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def bound(command: Sequence[str], death: signal.Signals) -> list[str]:
    """The command, told `death` by the kernel when the thread that starts it ends.

    Start it from a thread that lives as long as it should. Where `setpriv` is missing
    the command stays as it is: a killed parent then leaves it running.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", death.name[3:], *command] if setpriv else [*command]


def spawn(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: IO[bytes] | int
) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own, out of reach of the terminal's Ctrl-C."""
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def trim(log: Path) -> None:
    """Begin a log anew that has grown too long."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.unlink()


def free(port: int) -> bool:
    """Whether a server could listen on that loopback port now."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(*, first: int | None = None) -> int:
    """A free loopback port: `first` if it is free, otherwise one at random."""
    if first and free(first):
        return first
    return next(port for port in iter(lambda: random.randrange(*PORTS), 0) if free(port))


def own_port(*, first: int | None = None) -> int:
    """As `free_port`, and no other process that asks so gets it while this one lives. What is to listen
    there needs seconds to come up: two `baton up` that begin together took one port."""
    port = free_port(first=first)
    while (port != first and port in _owned) or not _claimed(port):
        port = free_port()
    return port


def _claimed(port: int) -> bool:
    if port in _owned:
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0baton-port-{port}")  # of our network, as the port; gone with us
    except OSError:
        claim.close()
        return False
    claim.detach()  # open for as long as this process lives
    _owned.add(port)
    return True


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the program's name: state, parent, group, …"""
    text = _read(PROC / str(pid) / "stat")
    return text[text.rindex(b")") + 2 :].decode().split() if text else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
