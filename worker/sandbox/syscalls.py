"""What an agent may not ask of the kernel: a seccomp filter, as bubblewrap takes it.

In its box an agent is nobody, so the kernel refuses most of this anyway. The filter keeps it from
asking: what has had holes is out of its reach, and in a namespace of its own it cannot become
somebody. Programs hear EPERM; where one falls back to an older call they hear ENOSYS, as from a
kernel that does not have it (clone3: its flags lie in memory, where no filter looks).
"""

import errno
import os
import socket
from functools import cache
from typing import Any

MOUNTS = (
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "mount_setattr"),
    *("open_tree", "fsopen", "fsconfig", "fsmount", "fspick"),
)
NAMESPACES = ("unshare", "setns")
OTHERS = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp")
KEYS = ("add_key", "request_key", "keyctl")
KERNEL = (
    *("bpf", "userfaultfd", "perf_event_open", "open_by_handle_at", "fanotify_init", "syslog"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"),
    *("reboot", "swapon", "swapoff", "acct", "quotactl", "iopl", "ioperm", "clock_settime"),
    "settimeofday",
)
FORBIDDEN = (*MOUNTS, *NAMESPACES, *OTHERS, *KEYS, *KERNEL)
UNKNOWN = ("clone3", "io_uring_setup", "io_uring_enter", "io_uring_register")
# Of clone: mounts, cgroup, host name, IPC, user, processes, network.
NEW_NAMESPACE = tuple(1 << bit for bit in (17, 25, 26, 27, 28, 29, 30))
# Of ioctl: writing to the terminal as if its user had typed it.
TYPING = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
# Of socket: what programs use. Others lead to the host of a virtual machine, or to drivers.
FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
ALL_BITS = 0xFFFFFFFF  # of an int: the kernel does not look at the others
MISSING = (
    "libseccomp is missing: agents may ask the kernel for all that it gives to anybody; install it"
    " (on Debian: apt install libseccomp2)."
)


@cache
def program() -> bytes | None:
    """The filter; None where libseccomp is missing."""
    try:
        import pyseccomp  # pyright: ignore[reportMissingTypeStubs]
    except (ImportError, RuntimeError, OSError):
        return None
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    unknown = pyseccomp.ERRNO(errno.ENOSYS)
    rules.set_attr(pyseccomp.Attr.ACT_BADARCH, unknown)  # 32-bit programs
    for names, answer in ((FORBIDDEN, pyseccomp.ERRNO(errno.EPERM)), (UNKNOWN, unknown)):
        for name in names:
            if pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) != -1:
                rules.add_rule(answer, name)
    _forbid_arguments(pyseccomp, rules)
    with os.fdopen(os.memfd_create("filter"), "rb") as made:
        rules.export_bpf(made)
        made.seek(0)
        return made.read()


def _forbid_arguments(pyseccomp: Any, rules: Any) -> None:
    """What is forbidden of calls that every program makes."""
    refused, arg = pyseccomp.ERRNO(errno.EPERM), pyseccomp.Arg
    flags = 1 if os.uname().machine.startswith("s390") else 0
    for bit in NEW_NAMESPACE:
        rules.add_rule(refused, "clone", arg(flags, pyseccomp.MASKED_EQ, bit, bit))
    for what in TYPING:
        rules.add_rule(refused, "ioctl", arg(1, pyseccomp.MASKED_EQ, ALL_BITS, what))
    no_family = pyseccomp.ERRNO(errno.EAFNOSUPPORT)
    for family in sorted(set(range(max(FAMILIES))) - set(FAMILIES)):
        rules.add_rule(no_family, "socket", arg(0, pyseccomp.MASKED_EQ, ALL_BITS, family))
    rules.add_rule(no_family, "socket", arg(0, pyseccomp.GT, max(FAMILIES)))
