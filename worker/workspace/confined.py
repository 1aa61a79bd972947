"""Our git, held to the workspace and its repository by the kernel (Landlock).

Git reaches files by their paths. Where a directory becomes a link while it works, it would read
what the link leads to into a version, or write a version over it. So the kernel lets a git that
looks at a workspace read and write that directory and its repository, read what programs are made
of, and nothing else, wherever a path leads.

Such a rule holds for a thread and what it starts, for good: each git is started, and waited for,
by a thread of its own.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Thread
from typing import TypeVar

CREATE_RULESET, ADD_RULE, RESTRICT = 444, 445, 446  # the same on every kind of machine
VERSION = 1  # a flag: say which version the kernel has
LEAST = (
    3  # kernel 6.2: before, a file could be cut short through a link, and git could move none
)
PATH_BENEATH = 1
NO_NEW_PRIVS = 38
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
ALL = (1 << 15) - 1  # of version 3
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | 1 << 14  # and cutting them short
READ = EXECUTE | READ_FILE | READ_DIR
PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
NAMED = (  # what programs look at when they start; no secret is among it
    *("/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/alternatives"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf"),
    *("/dev/zero", "/dev/urandom", "/dev/random"),
)

T = TypeVar("T")


class Rules(ctypes.Structure):
    """`struct landlock_ruleset_attr`, as long as version 3 has it."""

    _fields_ = (("files", ctypes.c_uint64),)


class Below(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _fields_ = (("may", ctypes.c_uint64), ("place", ctypes.c_int32))


def confined(work: Callable[[], T], *, write: Iterable[Path], read: Iterable[Path] = ()) -> T:
    """Do the work, and let all that it starts reach these places alone; where the kernel cannot
    hold it to them, it is done all the same.

    The work is one program that is started and waited for. What it returns or raises is ours.
    """
    if not available():
        return work()
    return _apart(work, tuple(write), tuple(read))


def available() -> bool:
    """Whether the kernel can, and git is where programs are: of one elsewhere (a script that an
    operator puts before it) nobody knows what it needs."""
    found = shutil.which("git")
    known = found and os.path.realpath(found).startswith(tuple(f"{one}/" for one in PROGRAMS))
    return bool(known) and _works()


@cache
def _works() -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        if _call(CREATE_RULESET, None, 0, VERSION) >= LEAST:
            command = ("git", "--version")
            done = _apart(
                lambda: subprocess.run(command, capture_output=True, check=False), (), ()
            )
            return done.returncode == 0
    return False


def _apart(work: Callable[[], T], write: tuple[Path, ...], read: tuple[Path, ...]) -> T:
    done, failed = list[T](), list[BaseException]()

    def go() -> None:
        try:
            _confine(write, read)
            done.append(work())
        except BaseException as exc:
            failed.append(exc)

    thread = Thread(target=go, name="git", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _confine(write: tuple[Path, ...], read: tuple[Path, ...]) -> None:
    """Hold this thread, and all that it starts, to these places."""
    rules = _call(CREATE_RULESET, ctypes.byref(Rules(ALL)), ctypes.c_size_t(8), 0)
    try:
        for place in write:
            _allow(rules, place, ALL)
        _allow(rules, Path(os.devnull), READ | WRITE_FILE)
        for place in (*_programs(), *read):
            _allow(rules, place, READ)
        if _libc().prctl(NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
        _call(RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, place: Path, may: int) -> None:
    try:
        opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no leave
    try:
        if not place.is_dir():
            may &= OF_FILES
        _call(ADD_RULE, rules, PATH_BENEATH, ctypes.byref(Below(may, opened)), 0)
    finally:
        os.close(opened)


@cache
def _programs() -> tuple[Path, ...]:
    """Where programs have their files."""
    return tuple(place for name in (*PROGRAMS, *NAMED) if (place := Path(name)).exists())


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(number: int, *arguments: object) -> int:
    answer: int = _libc().syscall(number, *arguments)
    if answer < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return answer
