"""A lock that is a file: alone among the processes that ask for it, on hosts that share a disk too.

It goes with the process that holds it, however that dies. The file says who has it, for whoever
waits in vain.
"""

import fcntl
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOK_EVERY = 0.05  # seconds


@contextmanager
def taken(path: Path, *, within: float) -> Generator[bool]:
    """Take the lock, and let it go at the end; False: another has had it for so many seconds."""
    lock, until = _take(path), time.monotonic() + within
    while lock is None and time.monotonic() < until:
        time.sleep(LOOK_EVERY)
        lock = _take(path)
    try:
        yield lock is not None
    finally:
        if lock is not None:  # a process that was forked meanwhile may have it open for long
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


def holder(path: Path) -> str:
    """Who has taken the lock, or had it last."""
    try:
        return path.read_text(errors="replace").strip() or "another process"
    except OSError:
        return "another process"


def _take(path: Path) -> int | None:
    """The open file, if nobody else has the lock."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if not _locked(lock, path):
        os.close(lock)
        return None
    told = f"process {os.getpid()} of host {socket.gethostname()}\n".encode()
    with suppress(OSError):  # the disk may be full
        if os.pread(lock, len(told) + 1, 0) != told:
            os.ftruncate(lock, 0)
            os.pwrite(lock, told, 0)
    return lock


def _locked(lock: int, path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False  # another has it; or had it, and has removed the file
