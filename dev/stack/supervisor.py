"""Keeping a handful of processes alive, showing what they say, and ending them well.

    started ──► lives ──► dies ──► at once again, then after 0.5, 1, 2 … 30 s
                  │
                stop ──► TERM to the leader ── grace ──► TERM once more ──► KILL to all

Only a leader is asked to end: a Celery worker drains, while its pool children, asked
themselves, would die in mid-turn. What is left of a process that died is killed before
it is started again. One thread does all of this and starts every process, so that the
kernel's parent-death signal, which follows the thread, holds as long as the supervision.
Should we be killed, that signal tells the leaders, and the guard ends what is left.
"""

import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from dev.stack import processes
from dev.stack.processes import Process
from dev.stack.procfile import CODE

TICK = 0.05  # seconds between two looks at the processes
AGAIN = 1.0  # seconds before what the system refused is tried again
STEADY = 20.0  # seconds; who lived that long begins anew with its pauses
PAUSE_LIMIT = 30.0  # seconds
SECOND_TERM = 2.0  # seconds after the grace; "a second signal is obeyed at once"
LAST_CALL = 3.0  # seconds after the second TERM
OWN_GRACE = 5.0  # seconds a worker may go on when we were killed
OWN_END = 2.0  # seconds for what is left below to end by itself
TOKEN = "BATON_UP"  # in the environment of all that is started here, for a last look round  # noqa: S105
LINE_LIMIT = 2**16  # bytes; a longer line is shown in pieces

Say = Callable[[str, str], None]


@dataclass
class Child:
    """A process that is kept alive under its name."""

    name: str
    command: str
    log: Path
    wanted: bool = True  # false: it stays down
    process: Process | None = None
    deaths: int = 0  # in a row
    tail: deque[str] = field(default_factory=lambda: deque[str](maxlen=50))
    popen: subprocess.Popen[bytes] | None = None
    born: float = 0.0
    due: float = 0.0

    def lives(self, *, since: float = 0.0) -> bool:
        """Whether it runs, and has run for `since` seconds."""
        here = self.process is not None and processes.alive(self.process)
        return here and time.monotonic() - self.born >= since


class Supervisor:
    """The processes of `commands`; those named in `last` are ended after the others.

    `own` is what one of them, by its name, finds in its environment beside `env`. `mend` is
    called at every tick, by the thread that starts the processes.
    """

    def __init__(
        self,
        commands: Mapping[str, str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        say: Say,
        last: Iterable[str] = (),
        own: Mapping[str, Mapping[str, str]] | None = None,
        mend: Callable[[], None] = lambda: None,
    ):
        logs = cwd / ".baton" / "log"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in commands:
            processes.trim(logs / f"{name}.log")
        self.children = {
            name: Child(name, command, logs / f"{name}.log")
            for name, command in commands.items()
        }
        self.hurry = threading.Event()  # set: no more grace
        self._token = uuid4().hex
        self._env, self._own = {**env, TOKEN: self._token}, own or {}
        self._cwd, self._say, self._mend, self._last = cwd, say, mend, frozenset(last)
        self._grace = 0.0
        self._guard: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        patience = SECOND_TERM + LAST_CALL + OWN_GRACE
        command = ["-m", "dev.stack.guard", TOKEN, self._token, f"{patience:g}"]
        self._guard = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd=CODE,
        )
        self._thread.start()

    def stop(self, grace: float) -> None:
        """End all of them; none is left. `grace` seconds pass before they are asked again."""
        if not self._stopping.is_set():
            self._grace = grace
            self._stopping.set()
        if self._thread.ident:
            self._thread.join()
        if self._guard:
            self._guard.communicate()

    def hold(self, name: str, *, within: float = 10.0) -> None:
        """Ask one to end, and keep it down until `resume`."""
        child = self.children[name]
        child.wanted = False
        held = [child.process] if child.process else []
        processes.kill(held, signal.SIGTERM)
        if not processes.gone(held, within=within):
            processes.kill(held, signal.SIGKILL)
            processes.gone(held, within=within)

    def resume(self, name: str) -> None:
        child = self.children[name]
        child.deaths, child.due, child.wanted = 0, 0.0, True

    def kill(self, name: str) -> None:
        """Kill one as a crash would; it is started again."""
        child = self.children[name]
        processes.kill(filter(None, [child.process]), signal.SIGKILL)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._tick()
            except OSError as exc:  # a full disk, no process left to be had: it may pass
                self._say("up", f"{exc.strerror or exc}; trying again")
                self._stopping.wait(AGAIN)
        everyone = frozenset(self.children)
        self._end(everyone - self._last)
        self._end(everyone & self._last)
        self._pump(0)
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()

    def _tick(self) -> None:
        self._mend()
        for child in self.children.values():
            self._bury(child)
            if not child.popen and child.wanted and time.monotonic() >= child.due:
                self._try(child)
        self._pump(TICK)

    def _try(self, child: Child) -> None:
        """Begin it, or later: those that live are not to wait for that."""
        try:
            self._begin(child)
        except OSError as exc:
            child.due = time.monotonic() + AGAIN
            self._say("up", f"{child.name} cannot be started: {exc.strerror}; trying again")

    def _begin(self, child: Child) -> None:
        # the shell reads ${PORT:-5555} and makes way: the leader is the program itself
        shell = ["/bin/sh", "-c", f"exec {child.command}"]
        reading, writing = os.pipe()
        try:
            child.popen = processes.spawn(
                processes.bound(shell, signal.SIGTERM),
                env={**self._env, **self._own.get(child.name, {})},
                cwd=self._cwd,
                output=writing,
            )
        except OSError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        child.process = processes.look(child.popen.pid)
        child.born = time.monotonic()
        self._selector.register(reading, selectors.EVENT_READ, (child, bytearray()))

    def _bury(self, child: Child) -> None:
        """Note a death, kill what the dead one left in its group, and set the next start."""
        if not child.popen or not _ended(child.popen.pid):
            return
        with suppress(ProcessLookupError):
            os.killpg(child.popen.pid, signal.SIGKILL)  # before its pid can be used again
        code = child.popen.wait()
        if time.monotonic() - child.born > STEADY:
            child.deaths = 0
        pause = min(2.0 ** (child.deaths - 2), PAUSE_LIMIT) if child.deaths else 0.0
        child.deaths += 1
        child.due = time.monotonic() + pause
        child.popen = child.process = None
        if child.wanted and not self._stopping.is_set():
            when = f"in {pause:g} s" if pause else "now"
            self._say("up", f"{child.name} {_told(code)}; starting it again {when}")

    def _end(self, names: frozenset[str]) -> None:
        children = [child for name, child in self.children.items() if name in names]
        below = [one for child in children for one in self._below(child)]
        for patience in (self._grace + SECOND_TERM, LAST_CALL):
            for child in children:
                processes.kill(filter(None, [child.process]), signal.SIGTERM)
            self._pump_until(children, patience)
        for child in children:
            if child.popen:
                with suppress(ProcessLookupError):
                    os.killpg(child.popen.pid, signal.SIGKILL)
                child.popen.wait()
        self._sweep(below, all_of_us=self._last <= names)

    def _below(self, child: Child) -> list[Process]:
        return processes.descendants(child.process.pid) if child.process else []

    def _sweep(self, below: list[Process], *, all_of_us: bool) -> None:
        """Kill what outlived its leader, at the end also what has left every group."""
        if not self.hurry.is_set():
            processes.gone(below, within=OWN_END)
        for _ in range(3):  # what is being killed may be starting something
            left = below + (processes.carrying(TOKEN, self._token) if all_of_us else [])
            processes.kill(left, signal.SIGKILL)
            processes.gone(left, within=LAST_CALL)

    def _pump_until(self, children: list[Child], patience: float) -> None:
        """Show what they say until all of them have ended, or for so many seconds."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not self.hurry.is_set():
            self._pump(TICK)
            for child in children:
                self._bury(child)
            if not any(child.popen for child in children):
                return

    def _pump(self, seconds: float) -> None:
        if not self._selector.get_map():
            time.sleep(seconds)
            return
        for key, _ in self._selector.select(seconds):
            child, rest = key.data
            if not (heard := os.read(key.fd, 2**16)):  # all who could write have ended
                self._selector.unregister(key.fd)
                os.close(key.fd)
                heard = b"\n" if rest else b""
            rest += heard
            self._hear(child, rest)

    def _hear(self, child: Child, rest: bytearray) -> None:
        """Show the whole lines in `rest` and leave the beginning of the next one there."""
        end = len(rest) if len(rest) > LINE_LIMIT else rest.rfind(b"\n") + 1
        if not end:
            return
        lines = bytes(rest[:end]).decode(errors="replace").splitlines()
        del rest[:end]
        with suppress(OSError), child.log.open("a") as log:  # the disk may be full
            log.writelines(f"{line}\n" for line in lines)
        for line in lines:
            child.tail.append(line)
            self._say(child.name, line)


def last_words(child: Child) -> str:
    """The last line that says something, without colours."""
    lines = (re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in reversed(child.tail))
    return next(filter(None, lines), "it says nothing")


def _ended(pid: int) -> bool:
    """Whether our child has ended; it is left for `wait`, so that its pid stays taken."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _told(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
