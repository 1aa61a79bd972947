"""What outlived its worker and its keeper: found by the attempt that every process carries.

The agent carries it, with its keeper and what its tools begin; so does git, as long as it
works for a job. A tool's child may have cleaned its environment: it is found below one that
has not, be it the keeper that has inherited it.
"""

import os
import signal
from pathlib import Path
from uuid import UUID

from psycopg import Connection

from config.log import log
from db.jobs import rescue
from worker.process import identity

PASSES = 5  # the next one finds what a fork has begun beside the one before


def reap(attempt: UUID) -> int:
    """Kill every process of this host that carries the attempt, and all below it; how many
    there were. One of another user's, by sudo, is not ours to kill, nor to wait for."""
    mark = f"BATON_ATTEMPT={attempt}".encode()
    struck = set[int]()
    for _ in range(PASSES):
        found = _and_below([pid for pid in _pids() if mark in _environ(pid).split(b"\0")])
        killed = {pid for pid in found if _kill(pid)}
        if not killed:
            break
        struck |= killed
    return len(struck)


def reap_of_the_dead(conn: Connection) -> None:
    """Kill what is left here of jobs whose worker is gone: another host may run them by now."""
    for _, attempt, pid, born in rescue.running_on(conn, identity.boot()):
        if identity.started(pid) != born and (left := reap(attempt)):
            log.warning("agent.reaped", processes=left)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _and_below(roots: list[int]) -> set[int]:
    children = dict[int | None, list[int]]()
    for pid in _pids() if roots else ():
        children.setdefault(identity.parent(pid), []).append(pid)
    found, ahead = set(roots), list(roots)
    while ahead:
        below = [pid for pid in children.get(ahead.pop(), ()) if pid not in found]
        found.update(below)
        ahead += below
    return found


def _pids() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]


def _environ(pid: int) -> bytes:
    """Empty for a zombie, for one that is gone, and for another user's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
