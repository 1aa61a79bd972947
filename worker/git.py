"""Running git: with our configuration and nobody else's, and what its failures mean."""

import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from worker import fence
from worker.errors import (
    DISK_FULL,
    NOT_WRITABLE,
    AgentFailed,
    GitEnded,
    JobError,
    RemoteMissing,
    WorkspaceAway,
    WorkspaceFailed,
)

ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "baton",
    "GIT_AUTHOR_EMAIL": "baton@localhost",
    "GIT_COMMITTER_NAME": "baton",
    "GIT_COMMITTER_EMAIL": "baton@localhost",
    "LC_ALL": "C",
    # To other repositories: by these ways only, and nobody is asked for a password.
    "GIT_ALLOW_PROTOCOL": "file:ssh:https:http:git",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oConnectTimeout=10 -oServerAliveInterval=15",
}
SETTINGS = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.autocrlf=false"),
    *("-c", "core.safecrlf=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.attributesFile=/dev/null"),
    *("-c", "core.excludesFile=/dev/null"),
    *("-c", "gc.auto=0"),
    *("-c", "fetch.unpackLimit=1"),  # a fetch that breaks off leaves nothing
    # What git leaves behind when it is killed ends by itself where the server says nothing.
    *("-c", "http.lowSpeedLimit=1"),
    *("-c", "http.lowSpeedTime=300"),
)
TIMEOUT = 300  # seconds
FULL = ("No space left on device", "Out of diskspace", "Disk quota exceeded")  # as git says it
ROOM = 2**20  # bytes; what git had written it takes away when it fails
# A packing beside us takes empty directories of objects away, also one that was just made.
VANISHED = "unable to create temporary file: No such file or directory"
STRUCK = " died of signal "  # a git that was started by git
TRIES = 5
LAST = 300  # characters of what git says
WHOSE = re.compile(r"(?<=://)[^/\s]*@")  # user, password or token of a URL
# As git's server, git over http and the hosts of many repositories say it.
MISSING = re.compile(
    r"does not appear to be a git repository|^(fatal: )?repository '.*' not found"
    r"|repository not found",
    re.IGNORECASE | re.MULTILINE,
)


def not_kept(said: str) -> JobError:
    return WorkspaceFailed(f"Git cannot keep the workspace: {said[-LAST:]}")


def away(said: str) -> JobError:
    """What git says first is why; the rest is what it guesses. Nobody named in a URL is told."""
    first = next((line for line in said.splitlines() if line.strip()), "git said nothing")
    told = WHOSE.sub("", first.removeprefix("fatal: ").strip())[:LAST]
    return RemoteMissing(told) if MISSING.search(said) else WorkspaceAway(told)


@cache
def bound() -> tuple[str, ...]:
    """What starts a command so that the kernel ends it with the thread that started it: here
    that thread waits for it. By SIGTERM, on which git takes its locks away and ends what it has
    begun. Empty where there is no such `setpriv` (util-linux 2.33)."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return ()
    command = (setpriv, "--pdeathsig", signal.SIGTERM.name.removeprefix("SIG"))
    probe = subprocess.run((*command, "true"), capture_output=True, check=False)
    return command if probe.returncode == 0 else ()


def run(
    *command: str,
    cwd: Path,
    given: str = "",
    fine: tuple[int, ...] = (0,),
    failed: Callable[[str], JobError] = not_kept,
    within: float = TIMEOUT,
) -> str:
    """Raises what `failed` makes of what git said, OSError when the disk is full, Stopped
    when the workspace is another attempt's by now; GitEnded when it was killed, or took too long.

    Git ends with this process; what is left of it is found by the attempt (orphans.py)."""
    fence.check()
    said, killed = "", False
    for _ in range(TRIES):
        try:
            done = _done(command, cwd=cwd, given=given, within=within)
        except FileNotFoundError:
            if cwd.is_dir():
                raise
            raise AgentFailed("workspace_missing", f"{cwd} is gone") from None
        except subprocess.TimeoutExpired:  # it names the URL, password and all
            raise _ended(failed, f"no answer in {within:g} s") from None
        if done.returncode in fine:
            return done.stdout.decode(errors="surrogateescape")
        said = done.stderr.decode(errors="replace").strip()
        killed = done.returncode < 0 or STRUCK in said
        if VANISHED not in said:
            break
    fence.check()  # the relay may have killed it: then that is why it failed
    if killed:
        raise _ended(failed, "it was killed")
    if failed is not_kept:
        if any(full in said for full in FULL):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _check_writable(cwd)
    raise failed(said)


def _done(
    command: tuple[str, ...], *, cwd: Path, given: str, within: float
) -> "subprocess.CompletedProcess[bytes]":
    around = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(
        (*bound(), *command),
        cwd=cwd,
        env={**around, **ENVIRONMENT, **fence.mark()},
        input=given.encode(errors="surrogateescape"),
        capture_output=True,
        timeout=within,
        check=False,
    )


def _ended(failed: Callable[[str], JobError], why: str) -> JobError:
    """What is raised when git did not come to its end: that says nothing of the workspace."""
    return (
        GitEnded(f"Git could not keep the workspace: {why}.")
        if failed is not_kept
        else failed(why)
    )


def _check_writable(place: Path) -> None:
    """Raises OSError where the disk takes nothing: git does not always say that it is that
    ("couldn't write '….lock'")."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(ROOM))
    except OSError as exc:
        if exc.errno in DISK_FULL | NOT_WRITABLE:
            raise
