"""What an agent in its box tries, to get out of it: a program that runs where the agent would.

worker/sandbox/probe.py starts it with a document of places, and reads what it says: a line of JSON
for each of TRIES, `[name, result]`. A result is whether it could; None: that could not be tried.
It runs on the standard library alone, from its text: the box has none of our packages.
"""

import ctypes
import errno
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
NEW_USERS, DETACH, REMOUNT_BIND = 0x10000000, 2, 0x1020
SEIZE, IO_URING_SETUP = 0x4206, 425
KEYCTL = {"x86_64": 250, "aarch64": 219}

Told = dict[str, Any]
Try = Callable[[Told], bool | None]


def works(call: int) -> bool:
    return call >= 0


def stay(told: Told) -> bool:
    return told["owner"] is not None and os.getuid() != told["owner"]


def write_outside(_: Told) -> bool:
    return any(map(writes, ("/baton-was-here", "/etc/baton-was-here", "/usr/baton-was-here")))


def writes(path: str) -> bool:
    try:
        with open(path, "w"):  # noqa: PTH123 - here and below: started often, by text
            pass
        os.unlink(path)  # noqa: PTH108
    except OSError:
        return False
    return True


def reads(path: str) -> bool:
    with open(path, "rb") as f:  # noqa: PTH123
        return bool(f.read(1))


def read_canary(told: Told) -> bool:
    return reads(told["canary"])


def see_another_project(told: Told) -> bool:
    return os.path.exists(told["other"])  # noqa: PTH110


def read_shadow(_: Told) -> bool:
    return reads("/etc/shadow")


def set_kernel(_: Told) -> bool:
    with open("/proc/sys/kernel/core_pattern", "a"):  # noqa: PTH123
        return True


def see_processes(told: Told) -> bool:
    """The worker, by its number and when it began."""
    with open(f"/proc/{told['pid']}/stat") as f:  # noqa: PTH123
        return f.read().rpartition(")")[2].split()[19] == told["began"]


def use_hosts_network(told: Told) -> bool:
    return os.readlink("/proc/self/ns/net") == told["network"]  # noqa: PTH115


def reach_host(told: Told) -> bool:
    """A port that the worker listens at just now."""
    socket.create_connection(("127.0.0.1", told["port"]), timeout=2).close()
    return True


def reach_out(_: Told) -> bool:
    """Whether a packet has a way, so to a server of names: none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 53))
    return True


def unmount(told: Told) -> bool:
    places = ("/tmp", told["workspace"], "/proc")  # noqa: S108
    return any(works(libc.umount2(place.encode(), DETACH)) for place in places)


def mount(_: Told) -> bool:
    over = libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)
    return works(over) or works(libc.mount(b"none", b"/", None, REMOUNT_BIND, None))


def become_root_apart(_: Told) -> bool:
    return in_child(lambda: works(libc.unshare(NEW_USERS)))


def trace(_: Told) -> bool:
    if (other := os.fork()) == 0:
        signal.pause()
    try:
        return works(libc.ptrace(SEIZE, other, None, None))
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)


def use_keys(_: Told) -> bool | None:
    number = KEYCTL.get(os.uname().machine)
    return None if number is None else works(libc.syscall(number, 0, -3, 1))


def use_io_uring(_: Told) -> bool:
    libc.syscall(IO_URING_SETUP, 1, None)
    return ctypes.get_errno() == errno.EFAULT


def in_child(act: Callable[[], bool]) -> bool:
    if (child := os.fork()) == 0:
        os._exit(0 if act() else 1)
    return os.waitpid(child, 0)[1] == 0


def outlive(told: Told) -> None:
    """Leave one behind, in a session of its own, which holds a lock: whether it lives on is
    looked at from outside."""
    held = os.open(told["lock"], os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for each in (0, 1, 2):
                os.dup2(null, each)
            signal.pause()
        os._exit(0)
    os.wait()


def fork_without_end(told: Told) -> bool:
    children: list[int] = []
    try:
        while len(children) < told["many"]:
            if (child := os.fork()) == 0:
                signal.pause()
            children.append(child)
    except OSError:
        return False
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
    return True


TRIES: tuple[tuple[str, Try], ...] = (
    ("stay the worker's user", stay),
    ("write outside of its workspace", write_outside),
    ("read a file of the worker's", read_canary),
    ("see another project", see_another_project),
    ("read /etc/shadow", read_shadow),
    ("write /proc/sys/kernel/core_pattern", set_kernel),
    ("see the host's processes", see_processes),
    ("use the host's network", use_hosts_network),
    ("reach a port of the host", reach_host),
    ("reach a server of names", reach_out),
    ("unmount", unmount),
    ("mount", mount),
    ("become root in a namespace of its own", become_root_apart),
    ("trace another process", trace),
    ("use the kernel's keys", use_keys),
    ("use io_uring", use_io_uring),
    ("outlive its turn", outlive),
    ("fork without end", fork_without_end),
)


def main() -> None:
    told: Told = json.loads(sys.argv[1])
    for place in (told["workspace"], told["own"], "/tmp"):  # noqa: S108
        if not writes(f"{place}/in"):
            print(json.dumps(["cannot", f"write {place}"]), flush=True)  # noqa: T201
    if told["cli"] and not os.access(told["cli"], os.X_OK):
        lacks = f"run {told['cli']}: make it and its directories readable by all"
        print(json.dumps(["cannot", lacks]), flush=True)  # noqa: T201
    for name, attempt in TRIES:
        try:
            could = attempt(told)
        except OSError:
            could = False
        print(json.dumps([name, could]), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
