"""The keeper: a small process between worker and agent that lets no agent outlive its lease.

    worker ──feeds──► keeper ──► [box ──►] CLI ──► its tools
       └── SDK's pipes go straight through to the CLI ──┘

It runs on the standard library alone (`python -I -S keeper.py CLI-ARGUMENTS`), before
the product's packages could be imported. The worker feeds it with the moment until which
it may go on; when that has come, or the worker is gone (end of file, parent-death signal),
it kills everything below it and waits until that is gone. As a child subreaper it also
inherits what the agent's tools put into sessions of their own. Moments are of
CLOCK_BOOTTIME: the worker has the same, and a start that took long is not added to it.

Environment: BATON_CLI the program, BATON_KEEPER the feeder's abstract socket,
BATON_UNTIL the first moment, BATON_BOX what worker/sandbox/leash.py calls a Box, as JSON,
BATON_FORK `parent:child`, the ids of a session that is forked and of the fork.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

if not __package__:  # `-I -S` leave out where our packages are
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))  # noqa: PTH120

from worker.sandbox import bounds, groups, handover

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TERM_GRACE = 3.0  # seconds between asking the CLI to end and killing it
LATE = 5.0  # seconds to wait for a feed when the first moment has passed before we were there
NO_BOX = '{"command": [], "owner": null, "bridge": []}'
LOOK_EVERY = 1.0  # second; what waits does not count the time that a machine is suspended
TOKEN = "ANTHROPIC_API_KEY"  # of the turn: the key itself stays outside, with the egress proxy  # noqa: S105
ALLOWED = frozenset(
    [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "TZ",
        "TERM",
        "TMPDIR",
        "XDG_RUNTIME_DIR",
        "PWD",
        "SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
        TOKEN,
        "API_TIMEOUT_MS",
        "ENABLE_PROMPT_CACHING_1H",  # how long the provider keeps prompts for us
        "FORCE_PROMPT_CACHING_5M",
        "IS_SANDBOX",
        "BATON_ATTEMPT",
        "GIT_CEILING_DIRECTORIES",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_KEY_0",
        "GIT_CONFIG_KEY_1",
        "GIT_CONFIG_VALUE_0",
        "GIT_CONFIG_VALUE_1",
    ]
)
ALLOWED_PREFIXES = ("LC_", "CLAUDE_", "_CLAUDE_", "ANTHROPIC_", "DISABLE_")
SECRET = ("_KEY", "_TOKEN", "_HEADERS", "_SECRET", "_PASSWORD", "_PASSPHRASE")

libc = ctypes.CDLL(None, use_errno=True)


def allowed(environ: dict[str, str]) -> dict[str, str]:
    """What of the worker's environment the agent may see: by list, never by exception."""
    return {
        name: value
        for name, value in environ.items()
        if name in ALLOWED or (name.startswith(ALLOWED_PREFIXES) and not name.endswith(SECRET))
    }


def descendants(root: int) -> list[int]:
    """Living processes below `root`, parents first; zombies are dead."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{entry.name}/stat", errors="replace") as f:  # noqa: PTH123 - no pathlib here: it costs 10 ms
                    state, parent = f.read().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def kill_all() -> None:
    """Kill everything below this process, and return when nothing of it is left but what is
    another user's (sudo): that is not ours to kill."""
    others = set[int]()
    while below := [pid for pid in descendants(os.getpid()) if pid not in others]:
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except PermissionError:
                others.add(pid)
            except ProcessLookupError:
                pass
        reap()
        time.sleep(0.005)
    reap()  # what was dead already: or the time that it took is in nobody's books


def reap() -> dict[int, int]:
    """Collect the dead: pid → wait status."""
    gone: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            gone[pid] = status
    return gone


def spawn(
    command: list[str], environ: dict[str, str], hold: Callable[[], None] = lambda: None
) -> int:
    """Start the CLI in a session of its own; it dies with the keeper, however that dies. `hold`
    puts its limits upon it."""
    keeper = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (*ENDING, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(137)
        hold()
        os.execvpe(command[0], command, environ)
    except OSError as exc:
        os.write(2, f"keeper: cannot start {command[0]}: {exc.strerror}\n".encode())
    os._exit(127)


def move_sub_agents(fork: str, config: str) -> None:
    """Put the parent's sub-agents where a fork looks for them: under its own id.

    The SDK has laid them out under the parent's, in a directory that is this turn's own.
    """
    parent, _, child = fork.partition(":")
    with contextlib.suppress(FileNotFoundError):
        for project in os.scandir(f"{config}/projects"):
            if parent and os.path.isdir(f"{project.path}/{parent}"):  # noqa: PTH112 - as above
                os.rename(f"{project.path}/{parent}", f"{project.path}/{child}")  # noqa: PTH104


def boxed(box: dict[str, Any], cli: str) -> list[str]:
    """What starts the CLI in its box. Raises OSError if the filter of system calls is not there."""
    if not box["command"]:
        return [*box["bridge"], cli]
    cli = os.path.realpath(cli)  # a box has no link that would lead to it
    if not box.get("filter"):
        return [*box["command"], *box["bridge"], cli]
    os.set_inheritable(opened := os.open(box["filter"], os.O_RDONLY), True)
    first, *others = box["command"]
    return [first, "--seccomp", str(opened), *others, *box["bridge"], cli]


def tell(why: str, code: int) -> int:
    """Say why there is no agent any more; returns the exit code that means it."""
    os.write(2, f"keeper: {why}\n".encode(errors="replace"))
    return code


def feeder(name: str) -> socket.socket | None:
    """The worker's end of the feeding line; None when nobody feeds (a run by hand)."""
    if not name:
        return None
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(f"\0{name}")
    line.setblocking(False)
    return line


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def first_end(line: socket.socket | None, wakeup: int) -> float:
    """Until when the agent may go on that is to be begun. If the start took so long that it is
    over, the worker may have renewed its hold meanwhile, and says so."""
    if not line:
        return float("inf")
    until = float(os.environ.get("BATON_UNTIL", "0"))
    if until <= now() and line in select.select([line, wakeup], [], [], LATE)[0]:
        with contextlib.suppress(ConnectionError):
            return fed_until(line.recv(4096), until)
    return until


def keep(
    child: int,
    line: socket.socket | None,
    deadline: float,
    wakeup: int,
    *,
    too_much: Callable[[], str | None] = lambda: None,
) -> int:
    """Wait for the CLI's end, its worker's, or the lease's, or until it uses too much; returns
    the exit code."""
    look_at = now() + bounds.LOOK_EVERY
    watched: list[int | socket.socket] = [wakeup, *([line] if line else [])]
    while True:
        left = max(0.0, min(deadline - now(), LOOK_EVERY))
        ready, _, _ = select.select(watched, [], [], left)
        numbers = os.read(wakeup, 64) if wakeup in ready else b""
        if (status := reap().get(child)) is not None:
            return os.waitstatus_to_exitcode(status)
        asked = next((n for n in numbers if n in ENDING), None)
        if asked is not None:
            return end_gently(child, asked, deadline, line)
        if line and line in ready:
            try:
                fed = line.recv(4096)
            except ConnectionError:
                fed = b""
            if not fed:
                return 137  # the worker is gone
            deadline = fed_until(fed, deadline)
        if now() >= deadline:
            return 137
        if now() >= look_at:
            if why := too_much():
                return tell(why, bounds.EXCEEDED)
            look_at = now() + bounds.LOOK_EVERY


def fed_until(fed: bytes, deadline: float) -> float:
    """The new end, as in `b"5412.5\n"`; of several the last counts."""
    try:
        return float(fed.rpartition(b"\n")[0].split()[-1])
    except (ValueError, IndexError):
        return deadline


def end_gently(child: int, number: int, deadline: float, line: socket.socket | None) -> int:
    """Pass the signal on, so that the CLI can write down where it was; not for long, and
    not at all if the worker is gone: then nobody is there to read it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
    end = min(now() + TERM_GRACE, deadline)
    while now() < end and not (line and hung_up(line)):
        if (status := reap().get(child)) is not None:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    return 137


def hung_up(line: socket.socket) -> bool:
    """Whether the worker has let go of the line. What it feeds is passed over."""
    try:
        return not line.recv(4096)
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def noted(_number: int, _frame: object) -> None:
    """The wake-up pipe has the signal's number; there is nothing more to do here."""


def main() -> int:
    worker = os.getppid()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # what is sent to the worker's group, from a terminal, is not for us
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    box = json.loads(os.environ.get("BATON_BOX", NO_BOX))
    # A box dies with us, and all in it, be we stopped or not; else we are to kill what is below.
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL if box["command"] else signal.SIGTERM)
    if os.getppid() != worker:
        return 137  # it died before we could ask to be told
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writing)
    for number in (*ENDING, signal.SIGCHLD):
        signal.signal(number, noted)
    try:
        line = feeder(os.environ.get("BATON_KEEPER", ""))
    except OSError:
        return 137  # nobody is there to feed us
    if not os.access(cli := os.environ["BATON_CLI"], os.X_OK):
        return tell(f"cannot start {cli}: there is no such program", 127)
    if box["owner"] is not None and (why := handover.give(box["places"], box["owner"])):
        return tell(why, 126)
    try:
        command = [*boxed(box, cli), *sys.argv[1:]]
    except OSError as exc:
        return tell(f"cannot read {exc.filename}: {exc.strerror}", 126)
    if (until := first_end(line, reading)) <= now():
        return 137
    move_sub_agents(os.environ.get("BATON_FORK", ""), os.environ.get("CLAUDE_CONFIG_DIR", ""))
    return run(command, box, line, until, reading)


def run(
    command: list[str],
    box: dict[str, Any],
    line: socket.socket | None,
    until: float,
    wakeup: int,
) -> int:
    """Start the agent within its limits, and keep it; returns the exit code."""
    limits: bounds.Bounds | None = box.get("limits")
    group = groups.made(limits) if limits else None
    held = group.held if group else ()

    def hold() -> None:
        if limits:
            bounds.impose(limits, os.getuid() if box["owner"] is None else box["owner"])
        if group:
            group.enter()

    def too_much() -> str | None:
        return bounds.exceeded(limits, held, descendants(os.getpid())) if limits else None

    code = 137
    try:
        child = spawn(command, allowed(dict(os.environ)), hold)
        if line:
            line.sendall(f"{child}\n".encode())
        code = keep(child, line, until, wakeup, too_much=too_much)
        if group and limits and code and group.ran_out():
            code = tell(bounds.told("memory", limits), bounds.EXCEEDED)
    finally:
        kill_all()
        if group:
            group.end()
    if line:
        with contextlib.suppress(OSError):
            line.sendall(b"0\n")  # nothing is left: the worker need not look for it
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
