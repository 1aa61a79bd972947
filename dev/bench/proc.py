"""Processes that live on, as /proc tells of them: what each group used, and what memory it has.

Groups are told by the command line: a group's processor time is of all of it that is alive.
"""

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = {
    "Postgres": "bin/postgres",
    "Redis": "valkey-server",
    "egress proxy": "-m\0egress",
}
TICK = os.sysconf("SC_CLK_TCK")


def used(groups: dict[str, str] = GROUPS) -> dict[str, float]:
    """Seconds of processors that each group has used, of those begun below this process."""
    return {name: sum(map(_seconds, found)) for name, found in _found(groups).items()}


def seconds(pids: list[int]) -> float:
    """Seconds of processors that these processes, and their children that have ended, have used."""
    return sum(map(_seconds, pids))


def memory(pids: list[int]) -> float:
    """MB that these processes have, each shared page counted in parts (PSS)."""
    return sum(map(_pss, pids)) / 1000


def below(parent: int) -> list[int]:
    """A process and all that it, and those, have begun."""
    parents = {pid: int(stat[1]) for pid in _all() if (stat := _stat(pid))}
    found = [parent]
    for one in found:
        found += [pid for pid, of in parents.items() if of == one]
    return found


def words(pid: int) -> str:
    """Its command line, each word behind a NUL."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _found(groups: dict[str, str]) -> dict[str, list[int]]:
    """The group's first process below us, and all that it began (those of Postgres say little)."""
    mine = below(os.getpid())
    firsts = {
        name: [pid for pid in mine if told in words(pid)] for name, told in groups.items()
    }
    return {
        name: list(dict.fromkeys(pid for first in pids for pid in below(first)))
        for name, pids in firsts.items()
    }


def _all() -> Iterator[int]:
    yield from (int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit())


def _seconds(pid: int) -> float:
    """Its own, and of those of its children that have ended."""
    stat = _stat(pid)
    return sum(map(int, stat[11:15])) / TICK if stat else 0.0


def _stat(pid: int) -> list[str]:
    """The fields behind the name: state, parent, …; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _pss(pid: int) -> int:
    """In kB; 0 for one that has ended, or is another's."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
