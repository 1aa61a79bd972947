"""What one turn may use of its host: memory, processes, files, time. The keeper's part of it.

    memory, processes    by a control group (worker/sandbox/groups.py) where there is one; else
                         looked at each LOOK_EVERY seconds, all of a turn together, and ended
                         above it. Between two looks an rlimit bounds processes, and of memory
                         the kernel takes that of agents first when there is none left
    files, CPU time      by rlimits, of each process

No rlimit does for memory: the agent's program maps 6 GB and touches 0.2.

It imports the standard library alone, as the keeper does.
"""

import contextlib
import os
import resource
from collections.abc import Iterable, Iterator
from typing import TypedDict

LOOK_EVERY = 1.0  # seconds
EXCEEDED = 125  # the keeper's exit code
PAGE = os.sysconf("SC_PAGE_SIZE")
FIRST_TO_GO = "900"  # of 1000, when the host has no memory left
# The kernel counts all processes of a user, on the whole host: others' agents are to go on.
OTHERS_TOO = 2
SENTENCE = "The agent used more than {most} {of}: ask for less at once, or raise {setting}."


class Bounds(TypedDict):
    """Bytes of memory, processes and threads, bytes of one file, open files and seconds of CPU
    of one process."""

    memory: int
    processes: int
    file: int
    open_files: int
    cpu: int


def impose(bounds: Bounds, uid: int) -> None:
    """Set the limits of this process and of all that it begins; the agent has this uid."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, bounds["file"])
    _lower(resource.RLIMIT_NOFILE, bounds["open_files"])
    _lower(resource.RLIMIT_CPU, bounds["cpu"])
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as f:  # noqa: PTH123
        f.write(FIRST_TO_GO)
    most = sum(_threads_of(uid)) + OTHERS_TOO * bounds["processes"]
    _lower(resource.RLIMIT_NPROC, most)


def _lower(kind: int, most: int) -> None:
    soft, hard = (
        most if each == resource.RLIM_INFINITY else min(each, most)
        for each in resource.getrlimit(kind)
    )
    resource.setrlimit(kind, (soft, hard))


def _threads_of(uid: int) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                yield _threads(entry.name)


def exceeded(bounds: Bounds, held: Iterable[str], pids: Iterable[int]) -> str | None:
    """What these processes use too much of together, as a sentence; what is `held` by others is
    not looked at."""
    threads = memory = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            threads += _threads(pid)
            memory += _memory(pid)
    if "processes" not in held and threads > bounds["processes"]:
        return told("processes", bounds)
    if "memory" not in held and memory > bounds["memory"]:
        return told("memory", bounds)
    return None


def told(what: str, bounds: Bounds) -> str:
    """The sentence for people."""
    if what == "memory":
        size = f"{bounds['memory'] / 2**30:.3g} GiB"
        return SENTENCE.format(most=size, of="of memory", setting="BATON_LIMIT_MEMORY")
    return SENTENCE.format(
        most=bounds["processes"],
        of="processes and threads at a time",
        setting="BATON_LIMIT_PROCESSES",
    )


def _threads(pid: int | str) -> int:
    with open(f"/proc/{pid}/stat", errors="replace") as f:  # noqa: PTH123 - as in the keeper
        return int(f.read().rpartition(")")[2].split()[17])


def _memory(pid: int) -> int:
    """Bytes that are its own; what is of a file, or shared, may be many others' too."""
    with open(f"/proc/{pid}/statm") as f:  # noqa: PTH123 - as in the keeper
        resident, shared = map(int, f.read().split()[1:3])
    return (resident - shared) * PAGE
