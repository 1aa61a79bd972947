"""Our own hands on what an agent may have written: by descriptor, and never through a link.

A path is looked up anew by every call, so that a directory may be a link to somewhere else by the
next one. Here everything is reached from a descriptor of the workspace, by one call of the kernel
that follows no link on the way (openat2), or step by step where the kernel is older than that.
"""

import ctypes
import errno
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

OPENAT2 = 437  # the number of the call, on every kind of machine that has it
NO_MAGIC, NO_LINKS, BENEATH = 2, 4, 8  # RESOLVE_…
REACH = os.O_PATH | os.O_DIRECTORY  # also a directory that may not be listed
LIST = os.O_RDONLY | os.O_DIRECTORY
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)  # or a link by now, or another thing


class How(ctypes.Structure):
    """`struct open_how` of the kernel."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("way", ctypes.c_uint64))


@contextmanager
def at(root: Path) -> Generator[int]:
    """A descriptor of the workspace itself, whose own path may lead through links of ours."""
    with _closing(os.open(root, REACH | os.O_CLOEXEC)) as base:
        yield base


def open_at(base: int, name: str, flags: int) -> int:
    """Open what lies below the base under this name. Raises OSError, also where a link is on
    the way or at its end (ELOOP, or ENOTDIR)."""
    flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK * (not flags & os.O_PATH)
    if _knows_openat2():
        return _openat2(base, os.fsencode(name or "."), flags)
    *above, last = [part for part in name.split("/") if part] or ["."]
    if ".." in (*above, last):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    here = os.dup(base)
    for part in above:
        with _closing(here):
            here = os.open(part, REACH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    with _closing(here):
        return os.open(last, flags, dir_fd=here)


@contextmanager
def folder(base: int, name: str) -> Generator[int]:
    """A descriptor of a directory, for calls that take one; it need not be open to us."""
    with _closing(open_at(base, name, REACH)) as here:
        yield here


@contextmanager
def listed(base: int, name: str) -> Generator[Iterator[os.DirEntry[str]]]:
    """What lies in a directory, to be looked at as long as this lasts."""
    with _closing(open_at(base, name, LIST)) as here, os.scandir(here) as entries:
        yield entries


@contextmanager
def parent(base: int, name: str) -> Generator[tuple[int, str]]:
    """The directory that something lies in, and its name there."""
    above, _, last = name.rpartition("/")
    with folder(base, above) as here:
        yield here, last


def look(base: int, name: str) -> os.stat_result:
    """What lies there; a link is looked at as itself."""
    with parent(base, name) as (here, last):
        return os.lstat(last, dir_fd=here)


def may(here: int, want: int) -> bool:
    """Whether a directory that was reached is open to us like this (os.R_OK …)."""
    return os.access(_itself(here), want)


def change_mode(here: int, mode: int) -> None:
    """Set the mode of what was reached."""
    os.chmod(_itself(here), mode)  # noqa: PTH101 - of a descriptor


@contextmanager
def unless_gone() -> Generator[None]:
    """Nothing is to be done where it is not there any more, or is another thing by now."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in GONE:
            raise


def _itself(here: int) -> str:
    """A path that means what a descriptor does, wherever that is by now."""
    return f"/proc/self/fd/{here}"


@contextmanager
def _closing(opened: int) -> Generator[int]:
    try:
        yield opened
    finally:
        os.close(opened)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _knows_openat2() -> bool:
    """Older kernels (before 5.6) do not have it, and some boxes of others refuse it."""
    try:
        with at(Path("/")) as base:
            os.close(_openat2(base, b".", REACH))
    except OSError:
        return False
    return True


def _openat2(base: int, name: bytes, flags: int) -> int:
    how = How(flags, 0, NO_MAGIC | NO_LINKS | BENEATH)
    call = _libc().syscall
    opened: int = call(
        OPENAT2, base, name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), os.fsdecode(name))
    return opened
