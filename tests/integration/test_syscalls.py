"""What an agent in a box may not ask of the kernel, and what goes on working there."""

import shutil
import sys

import pytest

from tests.boxes import in_box
from tests.machine import needs_bubblewrap, needs_seccomp
from tests.running import AtWork
from worker.sandbox import syscalls

pytestmark = [needs_bubblewrap, needs_seccomp]

# A call that without the filter would succeed, or fail otherwise; and the answer to it.
ASKED = """
import ctypes, errno, os, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def says(*call):
    done = libc.syscall(*map(ctypes.c_long, call))
    return "done" if done >= 0 else errno.errorcode[ctypes.get_errno()]
numbers = eval(sys.argv[1])
for name in ("ptrace", "unshare", "keyctl", "add_key", "bpf", "userfaultfd", "perf_event_open",
             "setns", "open_by_handle_at", "process_vm_readv", "mount", "pivot_root",
             "io_uring_setup", "clone3", "kexec_load", "init_module"):
    print(name, says(numbers[name], 0, 0, 0, 0, 0))
print("clone", says(numbers["clone"], 0x10000000 | 17, 0, 0, 0, 0))
for high in (0, 1 << 32):  # the kernel looks at 32 bits
    print("ioctl", says(numbers["ioctl"], 0, 0x5412 | high, 0))
for family in (socket.AF_VSOCK, 38, 17, 44, 1 << 31):
    print("socket", says(numbers["socket"], family, 1, 0))
"""
ANSWERS = {"clone3": "ENOSYS", "io_uring_setup": "ENOSYS", "socket": "EAFNOSUPPORT"}
WORK = f"""
git init -q r && cd r && git config user.name a && git config user.email a@b
echo one > a && git add a && git commit -qm one && git log --format=%s
sh -c 'echo from a shell' | cat
{sys.executable} -c 'import threading, subprocess
threading.Thread(target=print, args=("a thread",)).start()
print(subprocess.check_output(["echo", "a child"], text=True), end="")'
"""
NODE = """
node -e 'new (require("worker_threads").Worker)("console.log(`a worker`)", {eval: true})'
node -e 'console.log(require("child_process").execSync("echo a child").toString().trim())'
npm --version > /dev/null && echo npm
"""


def numbers() -> dict[str, int]:
    import pyseccomp  # pyright: ignore[reportMissingTypeStubs]

    names = (*syscalls.FORBIDDEN, *syscalls.UNKNOWN, "clone", "ioctl", "socket")
    return {name: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name in names}


def test_an_agent_cannot_ask_for_what_has_had_holes(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    (at_work.place / "ask.py").write_text(ASKED)
    told = in_box(f'{sys.executable} -I -S ask.py "{numbers()}" < /dev/null', at_work.place)
    assert len(told) == 24
    assert [
        line for line in told if line.split()[1] != ANSWERS.get(line.split()[0], "EPERM")
    ] == []


def test_every_call_that_is_forbidden_is_known_to_the_library():
    assert [name for name, number in numbers().items() if number < 0] == []


def test_git_shells_and_python_work_all_the_same(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    assert in_box(WORK, at_work.place) == ["one", "from a shell", "a thread", "a child"]


@pytest.mark.skipif(not shutil.which("npm"), reason="this machine lacks node and npm")
def test_node_and_npm_work_all_the_same(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    assert in_box(NODE, at_work.place) == ["a worker", "a child", "npm"]


def test_the_agents_own_program_works_all_the_same_and_is_refused_as_well(at_work: AtWork):
    job = at_work.build("write a.txt: one\nrun: unshare -U true || echo refused > told.txt")
    assert (job.state, job.error) == ("done", None)
    assert (at_work.place / "told.txt").read_text() == "refused\n"
