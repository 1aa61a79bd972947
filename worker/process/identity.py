"""Who this process is, so that others can tell later whether it still lives.

A process is its pid and its start time (a pid is used again), on a host that is its
boot and pid namespace (a container that was restarted is another host).
"""

import hashlib
import os
import socket
import time
from functools import cache
from pathlib import Path

from config.settings import settings
from db.jobs.attempts import Runner


def now() -> float:
    """Seconds since this machine began: one clock for all its processes, and a machine that
    was suspended finds that time in it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def parent(pid: int) -> int | None:
    """The process that it is a child of; None if it is gone."""
    found = _stat(pid)
    return int(found[1]) if found else None


def started(pid: int) -> int | None:
    """The process's start in clock ticks since boot; None if it is gone or a zombie."""
    found = _stat(pid)
    return int(found[19]) if found and found[0] not in "ZX" else None


def stopped(pid: int) -> bool:
    """Whether somebody has stopped it (SIGSTOP)."""
    found = _stat(pid)
    return bool(found) and found[0] == "T"


def _stat(pid: int) -> list[str] | None:
    """What proc(5) says of it, from its state on; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


@cache
def boot() -> str:
    """This boot of this machine, as this pid namespace sees it."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot_id}/{Path('/proc/self/ns/pid').readlink()}"


def credential() -> str:
    """The hash that stands for the key and endpoint in use, in the ledger and in logs."""
    secret = settings().anthropic_api_key.get_secret_value()
    text = f"{settings().anthropic_base_url}\n{secret}"
    if bearer := settings().anthropic_auth_token.get_secret_value():
        text += f"\n{bearer}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# The worker that this process is, or whose child: pool children are forked after this.
WORKER_ID = f"{boot()}/{os.getpid()}"


def runner(worker_id: str) -> Runner:
    """This process, as the runner of an attempt."""
    return Runner(
        worker_id=worker_id,
        host=socket.gethostname(),
        boot=boot(),
        pid=os.getpid(),
        pid_started=started(os.getpid()) or 0,
        credential=credential(),
    )
