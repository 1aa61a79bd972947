"""A control group for each turn, where systemd or somebody else has delegated some (cgroup v2).

    baton.service            Delegate=memory pids: ours to make groups in; marked `user.delegate`
    ├── worker               DelegateSubgroup=worker: the worker's own processes
    └── turn-1234-567890     of the keeper 1234, which began then: the agent and all below it

A group holds what no limit of a process can: all of a turn together. And it names what is of a
turn for good: nothing leaves it, however it forks. It imports the standard library alone.
"""

import contextlib
import os
import time
from collections.abc import Mapping

PREFIX = "turn-"
DELEGATED = "user.delegate"  # how systemd marks what it leaves to us
PATIENCE = 5.0  # seconds for what was killed to be gone
# What limits which: the file of a group, and the controller that has it.
FILES = {"memory": ("memory.max", "+memory"), "processes": ("pids.max", "+pids")}


class Group:
    """The group at `path`, of one turn; `held` says what it limits."""

    def __init__(self, path: str, held: tuple[str, ...] = ()) -> None:
        self.path = path
        self.held = held

    def enter(self) -> None:
        """Put this process in, and with it all that it begins. Raises OSError."""
        _write(f"{self.path}/cgroup.procs", "0")

    def ran_out(self) -> bool:
        """Whether the kernel has killed something in there for want of memory."""
        counts = dict(line.split() for line in _read(f"{self.path}/memory.events").splitlines())
        return int(counts.get("oom_kill", 0)) > 0

    def end(self) -> None:
        """Kill what is in there, and remove it."""
        with contextlib.suppress(OSError):
            _write(f"{self.path}/cgroup.kill", "1")
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                os.rmdir(self.path)  # noqa: PTH106 - as in the keeper
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.01)
            else:
                return


def made(limits: Mapping[str, object]) -> Group | None:
    """A group for the turn that this keeper keeps; None where none is delegated."""
    if not (above := delegated()):
        return None
    path = f"{above}/{PREFIX}{os.getpid()}-{_began(os.getpid())}"
    for _, controller in FILES.values():
        with contextlib.suppress(OSError):
            _write(f"{above}/cgroup.subtree_control", controller)
    try:
        os.mkdir(path)  # noqa: PTH102 - as in the keeper
    except OSError:
        return None
    return Group(path, tuple(_limited(path, limits)))


def _limited(path: str, limits: Mapping[str, object]) -> list[str]:
    held: list[str] = []
    for what, (name, _) in FILES.items():
        with contextlib.suppress(OSError):
            _write(f"{path}/{name}", str(limits[what]))
            held.append(what)
    with contextlib.suppress(OSError):
        _write(f"{path}/memory.swap.max", "0")
    return held


def end_those_of_the_dead() -> None:
    """Kill what is left in groups whose keeper is gone."""
    if not (above := delegated()):
        return
    for name in os.listdir(above):  # noqa: PTH208 - as in the keeper
        _, _, whose = name.partition(PREFIX)
        pid, _, began = whose.partition("-")
        if name.startswith(PREFIX) and pid.isdigit() and _began(int(pid)) != began:
            Group(f"{above}/{name}").end()


def delegated() -> str | None:
    """The group in which this process may make others, if there is one."""
    root = mounted()
    own = (line for line in _read("/proc/self/cgroup").splitlines() if line.startswith("0::"))
    path = next(own, "0::/")[3:]
    above = f"{root}{os.path.dirname(path)}"  # noqa: PTH120 - as in the keeper
    try:
        ours = os.getxattr(above, DELEGATED) == b"1"
    except OSError:
        return None
    return above if root and path != "/" and ours and os.access(above, os.W_OK) else None


def mounted() -> str | None:
    """Where the groups of this host are."""
    mounts = (line.split() for line in _read("/proc/self/mounts").splitlines())
    return next((at for _, at, kind, *_ in mounts if kind == "cgroup2"), None)


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty if there is none."""
    return "".join(_read(f"/proc/{pid}/stat").rpartition(")")[2].split()[19:20])


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as f:  # noqa: PTH123 - as in the keeper
            return f.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w") as f:  # noqa: PTH123 - as in the keeper
        f.write(text)
