"""The box that an agent runs in, where bubblewrap is present: which way of making it holds here.

What a box shows of the disk: worker/sandbox/mounts.py. It has processes and a network of its own,
and no capability.

    a worker that is not root    bwrap: layout, namespaces, filter ──► CLI
    a worker that is root        bwrap: layout, namespaces, filter
                                 ──► setpriv: another uid, nothing to gain ──► CLI

Root would keep its rights on the host's files and settings, whatever it is shown and without
any capability: /proc/sys, /etc/shadow. So its agents are another user's, whom nothing belongs
to but the workspace and the turn's own directory (the keeper hands them over). Only who was
root can show that user what lies in directories that are closed to it: that comes first.

No namespace of users is to be made in there: in one of its own an agent is root, and much of the
kernel is within its reach. The filter of system calls (worker/sandbox/syscalls.py) forbids it.
Where that cannot be made, bubblewrap does for a worker that is not root.

Ways are tried as a turn goes them, with a probe inside that tries to get out (worker/sandbox/probe.py).
The first that holds is taken. Where none holds no agent starts, unless BATON_SANDBOX=off says so:
`baton up` does where bubblewrap is missing, aloud.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from os import geteuid
from pathlib import Path

import structlog

from config.settings import settings
from worker.failures.errors import AgentFailed
from worker.sandbox import home, mounts, network, own_etc, probe, syscalls
from worker.sandbox.bounds import Bounds
from worker.sandbox.home import unwritable
from worker.sandbox.leash import Box
from worker.sandbox.probe import Line, Report

log = structlog.get_logger()

# All of it dies with its first process, and that with the keeper. A signal of a parent's death
# would not do: bubblewrap, without capabilities, may not send it to what has another user.
PROCESSES = ("--unshare-pid", "--die-with-parent")
NETWORK = ("--unshare-net",)  # loopback of its own, and what worker/sandbox/network.py lays in
APART = ("--unshare-ipc", "--unshare-uts", "--hostname", own_etc.HOST, "--unshare-cgroup-try")
NAMESPACES = ("--unshare-user", *PROCESSES, *APART, *NETWORK)
NO_RIGHTS = ("--cap-drop", "ALL")
NO_MORE_USERS = ("--disable-userns",)  # since bubblewrap 0.8
SIZES = (0, 7)  # since this bubblewrap a directory in memory can be bounded
OWN_PROCESSES = ("--proc", "/proc")
NAMED = tuple(
    word
    for name, value in (
        ("HOME", mounts.HOME),
        ("USER", own_etc.NAME),
        ("LOGNAME", own_etc.NAME),
    )
    for word in ("--setenv", name, str(value))
)
AGAIN = 60.0  # seconds after which what did not hold is tried again
FREE = "agents have the worker's rights and see the whole disk"
# What BATON_SANDBOX says, as doctor and docs/security.md tell it.
MODES = {
    "strict": "agents run in a box of which everything that is tried is known to hold, or not at all",
    "auto": "agents run in a box that holds; without bubblewrap only under `baton up`, which says so",
    "off": "agents run without a box, with the worker's rights",
}


@dataclass(frozen=True, slots=True)
class Way:
    """A way of making a box: what makes it, and what comes behind that. `owner` is the agent's uid
    where it is not the worker's; `sized`: a directory in memory can be bounded."""

    outer: tuple[str, ...]
    behind: tuple[str, ...] = ()
    owner: int | None = None
    sized: bool = True

    def box(
        self, workspace: Path, *, own: Path, cli: Path, writable: bool, networked: bool = True
    ) -> Box:
        """A box with this layout; one that is not `networked` has no way to the egress proxy."""
        uid = geteuid() if self.owner is None else self.owner
        files = mounts.layout(
            workspace,
            own=own,
            cli=cli,
            writable=writable,
            uid=uid,
            sized=self.sized,
            networked=networked,
        )
        words = [*self.outer, *files, *OWN_PROCESSES, *_devices(self.sized)]
        words += ("--remount-ro", "/", "--chdir", str(workspace), *NAMED, "--", *self.behind)
        return Box(
            tuple(words),
            _filter(),
            self.owner,
            (str(own), str(workspace)),
            limits(),
            network.bridge(boxed=True) if networked else (),
        )


def limits() -> Bounds:
    """What a turn may use of its host."""
    return {
        "memory": settings().limit_memory,
        "processes": settings().limit_processes,
        "file": settings().limit_file,
        "open_files": settings().limit_open_files,
        "cpu": max(1, int(settings().limit_cpu.total_seconds())),
    }


def _filter() -> str | None:
    """The file with the filter of system calls, if one can be made. Raises OSError."""
    made = syscalls.program()
    return str(home.put("filter", made, mode=0o644)) if made else None


def _devices(sized: bool) -> tuple[str, ...]:
    """Devices without one of the host's disks; nothing can be put beside them."""
    memory = mounts.scratch(Path("/dev/shm"), sized)  # noqa: S108 - it is the box's own
    return ("--dev", "/dev", *memory, "--remount-ro", "/dev")


@dataclass(frozen=True, slots=True)
class Found:
    """The way that holds here, and what was tried of it; or none, and why. `refused`: then no
    agent is to start."""

    way: Way | None
    why: str = ""
    refused: bool = False
    lines: tuple[Line, ...] = ()


class NoneHolds(Exception):
    """No way to a box holds here; the text says why, in a few words."""


def found() -> Found:
    """How agents are boxed on this host. Raises OSError where that cannot be tried."""
    mode = settings().sandbox
    if mode == "off":
        return Found(None, f"off (BATON_SANDBOX): {FREE}")
    if not (bwrap := shutil.which("bwrap")):
        return Found(None, _refusal("bubblewrap is missing", "install it"), refused=True)
    here = _looked(bwrap, settings().agent_uid, time.monotonic() // AGAIN)
    if (
        mode == "strict"
        and here.way
        and (open_ := [x for x in here.lines if x.could is not False])
    ):
        why = f"{open_[0]}, and BATON_SANDBOX is strict"
        return Found(None, _refusal(why, _correct()), refused=True, lines=here.lines)
    return here


def missing() -> str | None:
    """Why there can be no box at all on this host, in a few words."""
    if not (bwrap := shutil.which("bwrap")):
        return "bubblewrap is missing"
    return None if probe.works([bwrap, *NAMESPACES]) else "bubblewrap does not work here"


def forget() -> None:
    """Let it be found out anew."""
    _way.cache_clear()
    _looked.cache_clear()


@lru_cache(maxsize=1)
def _looked(bwrap: str, uid: int, _period: float) -> Found:
    """What does not hold now may do so later; what holds does as long as kernel and bubblewrap
    are the same."""
    try:
        way, report = _way(bwrap, uid, os.uname().release, Path(bwrap).stat().st_mtime_ns)
    except NoneHolds as exc:
        return Found(None, _refusal(str(exc), _correct()), refused=True)
    return Found(way, lines=report.lines)


@lru_cache(maxsize=4)
def _way(bwrap: str, uid: int, _kernel: str, _made: int) -> tuple[Way, Report]:
    """The first way that holds. Raises NoneHolds, with what is wrong with the last."""
    why = "setpriv is missing: install util-linux"
    for each in ways(bwrap, uid):
        report = probe.tried(each.box, owner=each.owner)
        if report.fault is None:
            return each, report
        why = report.fault
    raise NoneHolds(why)


def _refusal(why: str, advice: str) -> str:
    return (
        f"No agent is started: its box does not hold here ({why}); {advice}, or set"
        " BATON_SANDBOX=off, with which agents have the worker's rights."
    )


def _correct() -> str:
    if geteuid() == 0:
        return "run the worker as another user than root, or correct that"
    return "correct that"


def ways(bwrap: str, uid: int) -> Iterator[Way]:
    """The ways to a box, the best first; `uid` is the agent's where the worker is root."""
    sized = version(bwrap) >= SIZES
    if geteuid() != 0:
        for more in ((),) if syscalls.program() else (NO_MORE_USERS, ()):
            yield Way((bwrap, *NAMESPACES, *more, *NO_RIGHTS), sized=sized)
    elif setpriv := shutil.which("setpriv"):
        yield Way((bwrap, *PROCESSES, *APART, *NETWORK), _become(setpriv, uid), uid, sized)


@cache
def version(bwrap: str) -> tuple[int, ...]:
    """Which bubblewrap it is, as (0, 8, 0); empty where it does not say."""
    done = subprocess.run([bwrap, "--version"], capture_output=True, text=True, check=False)
    return tuple(map(int, re.findall(r"\d+", done.stdout)))


def _become(setpriv: str, uid: int) -> tuple[str, ...]:
    """What makes of root another, for good."""
    return (
        setpriv,
        *("--reuid", str(uid), "--regid", str(uid), "--clear-groups"),
        *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"),
    )


def box(
    workspace: Path, *, own: Path, cli: Path, writable: bool, networked: bool = True
) -> Box:
    """The box of a turn; none where there can be none. Raises AgentFailed where one can be made
    and does not hold. Not `networked`: of a check, which asks no model.

    `own` is the turn's own directory; it and the workspace are there when the box starts.
    """
    try:
        here = found()
        if here.refused:
            raise AgentFailed("box_refused", here.why)
        if here.way is None:
            bridge = network.bridge(boxed=False) if networked else ()
            return Box(limits=limits(), bridge=bridge)
        return here.way.box(
            workspace.resolve(),
            own=own.resolve(),
            cli=cli.resolve(),
            writable=writable,
            networked=networked,
        )
    except TimeoutError as exc:  # the host is busy
        raise AgentFailed("box_refused", f"No box could be tried: {exc}.") from exc
    except OSError as exc:
        raise unwritable(exc) from exc


def told() -> str | None:
    """The box of this host's agents, for the row of its worker."""
    try:
        here = found()
    except OSError:
        return "not tried"
    return "bubblewrap" if here.way else "refused" if here.refused else None


def warn_of_none() -> None:
    """Say it in the log, once, as a worker starts."""
    try:
        here = found()
    except OSError as exc:
        log.warning("box.not_tried", error=str(exc))
        return
    for line in here.lines:
        if line.could is not False:
            log.warning("box.not_held", what=str(line))
    if here.refused:
        log.error("box.refused", why=here.why)
    elif here.way is None:
        log.warning("box.none", why=here.why)
