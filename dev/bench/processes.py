"""`baton bench processes`: what each process of the Procfile takes, idle, and what a running turn takes.

    start     the process alone, until it rests: seconds by the clock, and of processors
    idle      its memory then (PSS: a page that several processes share is counted in parts)
    turn      a job whose agent waits: the CLI, its keeper, the box, and what the worker has grown

A process rests when it and all that it began have used next to no processor for a while, so what
it imports later, with its first work, is not in its start.
"""

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from rich.table import Table

from dev.bench.place import Place, at_place
from dev.bench.proc import below, memory, seconds, words
from dev.bench.resume import model
from dev.stack.processes import free_port
from dev.stack.procfile import read_procfile
from dev.stack.readiness import NotReady
from worker.client import Build, enqueue

RESTS = 1.5  # seconds in which it uses less than LITTLE
LITTLE = 0.05  # seconds of processors
LOOK = 0.05
LONGEST = 90.0  # seconds until one rests, or a turn runs
WAITS = "run: sleep 600"  # what the agent of the running turn does
# What a turn's processes are told by, the first that fits.
PARTS = (
    ("keeper", "keeper.py"),
    ("bubblewrap", "bwrap"),
    ("bridge", "bridge.py"),
    ("the CLI", "claude\0"),
    ("its shell and tool", "sleep"),
)


@dataclass(frozen=True, slots=True)
class Rested:
    """What a process took until it rested: by the clock, of processors; and who is there then."""

    clock: float
    processors: float
    pids: list[int]


def main(root: Path) -> int:
    """Print the figures."""
    return at_place(root, lambda place: _tell(place, root))


def _tell(place: Place, root: Path) -> None:
    table = Table(title=f"Processes, idle; load {os.getloadavg()[0]:.1f}")
    for column in ("", "start, s", "of processors, s", "MB, the first", "MB, its children"):
        table.add_column(column)
    with model(place.path) as url:
        place.enter(
            url,
            BATON_WEB_PORT=str(free_port()),
            BATON_SECRET="bench" * 8,
            FLOWER_BASIC_AUTH="bench:bench",
            BATON_DRAIN_GRACE="1",
            PORT=str(free_port()),
        )
        commands = read_procfile(root)
        with _running(commands.pop("egress"), place) as egress:  # a worker would begin its own
            table.add_row("egress", *_figures(_rest(egress)))
            for name, command in commands.items():
                with _running(command, place) as process:
                    table.add_row(name, *_figures(_rest(process)))
            place.console.print(table)
            place.console.print(_of_a_turn(place, commands))


def _figures(rested: Rested) -> list[str]:
    first, *others = rested.pids
    more = f"{memory(others):.0f} ({len(others)})" if others else ""
    told = (f"{rested.clock:.1f}", f"{rested.processors:.2f}", f"{memory([first]):.0f}", more)
    return list(told)


@contextmanager
def _running(command: str, place: Place) -> Generator[subprocess.Popen[bytes]]:
    root, here = Path(__file__).parents[2], Path(sys.executable).parent
    path = f"{here}{os.pathsep}{os.environ['PATH']}"
    with (place.path / "log").open("ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=root,
            env={**os.environ, "PATH": path},
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(LONGEST)


def _rest(process: subprocess.Popen[bytes]) -> Rested:
    """Wait until it rests, or LONGEST is over."""
    began = time.monotonic()
    seen = [(0.0, 0.0)]  # moments, and what was used by then
    while (now := time.monotonic() - began) < LONGEST:
        if process.poll() is not None:
            raise NotReady(f"It ended by itself: {process.args}")
        seen.append((now, seconds(below(process.pid))))
        quiet = [used for at, used in seen if at <= now - RESTS]
        if quiet and quiet[-1] > LITTLE and seen[-1][1] - quiet[-1] < LITTLE:
            break
        time.sleep(LOOK)
    last = seen[-1][1] - LITTLE  # what it uses in rest does not count
    clock, used = next(one for one in seen if one[1] >= last)
    return Rested(clock, used, below(process.pid))


def _of_a_turn(place: Place, commands: dict[str, str]) -> Table:
    """A worker with one job, whose agent waits."""
    table = Table(title="A running turn, MB")
    for column in ("", "MB"):
        table.add_column(column)
    with (
        _running(commands["relay"], place),
        _running(commands["worker"], place) as worker,
        psycopg.connect(place.database_url, autocommit=True) as conn,
    ):
        before = memory(_rest(worker).pids)
        enqueue(conn, Build(project="bench", user="bench", prompt=WAITS))
        parts = _parts(worker.pid)
        ours = memory(below(worker.pid)) - sum(parts.values())
        for name, found in (*parts.items(), ("worker and its children, more", ours - before)):
            table.add_row(name, f"{found:.0f}")
        table.add_row("all of it", f"{sum(parts.values()) + ours - before:.0f}")
    return table


def _parts(worker: int) -> dict[str, float]:
    """MB of each part of the turn, once its agent waits."""
    told, end = dict[int, str](), time.monotonic() + LONGEST
    while time.monotonic() < end:
        told = {pid: words(pid) for pid in below(worker)}
        if any("sleep" in said and "claude" not in said for said in told.values()):
            break
        time.sleep(LOOK)
    found = dict[str, list[int]]()
    for pid, said in told.items():
        if name := next((name for name, sign in PARTS if sign in said), None):
            found.setdefault(name, []).append(pid)
    return {f"{name} ({len(pids)})": memory(pids) for name, pids in found.items()}
