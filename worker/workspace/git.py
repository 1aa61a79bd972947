"""Running git: with our configuration and nobody else's, and what its failures mean."""

import base64
import errno
import io
import os
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Collection
from functools import cache, partial
from pathlib import Path
from typing import IO
from urllib.parse import unquote_to_bytes

from worker.failures.errors import (
    DISK_FULL,
    NOT_WRITABLE,
    AgentFailed,
    GitEnded,
    JobError,
    RemoteMissing,
    RemoteRefuses,
    WorkspaceAway,
    WorkspaceFailed,
)
from worker.process import fence
from worker.workspace.confined import confined

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
CHUNK = 2**16  # bytes that are read at once of what git pours
FULL = ("No space left on device", "Out of diskspace", "Disk quota exceeded")  # as git says it
# The agent's own git keeps to its workspace, and what it finds there configured runs nothing.
AGENTS = {"core.fsmonitor": "false", "core.hooksPath": os.devnull}
ROOM = 2**20  # bytes; what git had written it takes away when it fails
# A packing beside us takes empty directories of objects away, also one that was just made.
VANISHED = "unable to create temporary file: No such file or directory"
STRUCK = " died of signal "  # a git that was started by git
TRIES = 5
LAST = 300  # characters of what git says
WHOSE = re.compile(r"(?<=://)[^/\s]*@")  # user, password or token of a URL
WITH_PASSWORD = re.compile(r"(https?://)(?P<who>[^/\s:@]*:[^/\s]*)@([^/\s@]+)")
# As git says what it finds wrong with an object that was sent to it (receive.fsckObjects).
REFUSED = re.compile(r"(object ([0-9a-f]{40,64}): \w+: .*)")
# As git's server, git over http and the hosts of many repositories say it.
MISSING = re.compile(
    r"does not appear to be a git repository|^(fatal: )?repository '.*' not found"
    r"|repository not found",
    re.IGNORECASE | re.MULTILINE,
)


def for_agents(workspace: Path) -> dict[str, str]:
    """The environment of an agent's git. It finds no repository around the workspace: neither
    commits into one, nor tells the model of one.

    A directory with a colon in its path cannot be named there; then the nearest above it is.
    """
    around = [str(path) for path in workspace.resolve().parents if ":" not in str(path)]
    named = {
        f"GIT_CONFIG_{part}_{number}": word
        for number, setting in enumerate(AGENTS.items())
        for part, word in zip(("KEY", "VALUE"), setting, strict=True)
    }
    return {
        "GIT_CEILING_DIRECTORIES": ":".join(around),
        "GIT_CONFIG_COUNT": str(len(AGENTS)),
        **named,
    }


def not_kept(said: str) -> JobError:
    return WorkspaceFailed(f"Git cannot keep the workspace: {said[-LAST:]}")


def away(said: str) -> JobError:
    """What git says first is why; the rest is what it guesses. Nobody named in a URL is told."""
    if refused := REFUSED.findall(said):
        return RemoteRefuses(refused[0][0].strip(), frozenset(each for _, each in refused))
    first = next((line for line in said.splitlines() if line.strip()), "git said nothing")
    told = WHOSE.sub("", first.removeprefix("fatal: ").strip())[:LAST]
    return RemoteMissing(told) if MISSING.search(said) else WorkspaceAway(told)


def gone(place: Path) -> JobError:
    """What is raised when the workspace is no directory any more."""
    return AgentFailed("workspace_missing", f"{place} is gone")


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
    """What git answers.

    Raises what `failed` makes of what git said, OSError when the disk is full, Stopped
    when the workspace is another attempt's by now; GitEnded when it was killed, or took too long.

    Git ends with this process; what is left of it is found by the attempt (process/reaper.py)."""
    return told(*command, cwd=cwd, given=given, fine=fine, failed=failed, within=within)[0]


def told(
    *command: str,
    cwd: Path,
    given: str = "",
    fine: tuple[int, ...] = (0,),
    failed: Callable[[str], JobError] = not_kept,
    within: float = TIMEOUT,
    only: Collection[Path] = (),
    borrowed: Collection[Path] = (),
) -> tuple[str, str]:
    """As `run`: what git answers, and what it complains of.

    Git reaches no place but `only` these, if any are named, and what it has `borrowed`."""
    fence.check()
    said, killed, cut_short = "", False, False
    for _ in range(TRIES):
        try:
            done = _done(
                command, cwd=cwd, given=given, within=within, only=only, borrowed=borrowed
            )
        except FileNotFoundError:
            if cwd.is_dir():
                raise
            raise gone(cwd) from None
        except subprocess.TimeoutExpired:  # it names the URL, password and all
            raise _ended(failed, f"no answer in {within:g} s") from None
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode == 0 or (done.returncode in fine and VANISHED not in said):
            return done.stdout.decode(errors="surrogateescape"), said
        cut_short = done.returncode == -signal.SIGBUS
        killed = done.returncode < 0 or STRUCK in said
        if VANISHED not in said:
            break
    fence.check()  # the relay may have killed it: then that is why it failed
    if cut_short:
        raise failed("a file was cut short while git read it")
    if killed:
        raise _ended(failed, "it was killed")
    if failed is not_kept:
        check_room(said)
        check_writable(cwd)
    raise failed(said)


def pour(*command: str, cwd: Path, into: IO[bytes], within: float = TIMEOUT) -> None:
    """Write what git answers, however much that is. Raises WorkspaceFailed; GitEnded when git itself
    was waited for longer than `within` (s); and what writing raises. Git is gone then."""
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            (*bound(), *command), cwd=cwd, env=_around(), stdout=subprocess.PIPE, stderr=said
        ) as process,
    ):
        try:
            _copy(process.stdout or io.BytesIO(), into, within)
            failed = process.wait(within)
        except (TimeoutError, subprocess.TimeoutExpired):
            process.kill()
            raise GitEnded(f"Git has not made the patch in {within:g} s.") from None
        except BaseException:
            process.kill()  # it would go on until it writes something
            raise
        if failed:
            said.seek(0)
            raise not_kept(said.read().decode(errors="replace").strip())


def _copy(source: IO[bytes], into: IO[bytes], left: float) -> None:
    """Raises TimeoutError once git was waited for so many seconds; a slow reader's are not counted."""
    ready = select.poll()
    ready.register(source, select.POLLIN)
    while True:
        began = time.monotonic()
        if not ready.poll(max(left, 0) * 1000):
            raise TimeoutError
        left -= time.monotonic() - began
        if not (data := os.read(source.fileno(), CHUNK)):
            return
        into.write(data)


def check_room(said: str) -> None:
    """Raises OSError where git says that a disk is full."""
    if any(full in said for full in FULL):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _done(
    command: tuple[str, ...],
    *,
    cwd: Path,
    given: str,
    within: float,
    only: Collection[Path],
    borrowed: Collection[Path],
) -> "subprocess.CompletedProcess[bytes]":
    shown, unsaid = unsaid_of(command)
    work = partial(
        subprocess.run,
        (*bound(), *shown),
        cwd=cwd,
        env=_around() | unsaid,
        input=given.encode(errors="surrogateescape"),
        capture_output=True,
        timeout=within,
        check=False,
    )
    return confined(work, write=only, read=borrowed) if only else work()


def unsaid_of(command: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The command without user and password of its http URLs, since anybody on the host may
    list its arguments; and the environment from which git has them instead."""
    shown, unsaid = list(command), dict[str, str]()
    for place, word in enumerate(command):
        if found := WITH_PASSWORD.match(word):
            scheme, who, host = found.groups()
            shown[place] = f"{scheme}{word[found.end('who') + 1 :]}"
            login = base64.b64encode(unquote_to_bytes(who)).decode()
            unsaid["GIT_CONFIG_COUNT"] = "1"
            unsaid["GIT_CONFIG_KEY_0"] = f"http.{scheme}{host}/.extraHeader"
            unsaid["GIT_CONFIG_VALUE_0"] = f"Authorization: Basic {login}"
    return tuple(shown), unsaid


def _around() -> dict[str, str]:
    """The environment of a git of ours."""
    around = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return {**around, **ENVIRONMENT, **fence.mark()}


def _ended(failed: Callable[[str], JobError], why: str) -> JobError:
    """What is raised when git did not come to its end: that says nothing of the workspace."""
    return (
        GitEnded(f"Git could not keep the workspace: {why}.")
        if failed is not_kept
        else failed(why)
    )


def check_writable(place: Path) -> None:
    """Raises OSError where the disk takes nothing: git does not always say that it is that
    ("couldn't write '….lock'")."""
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(ROOM))
    except OSError as exc:
        if exc.errno in DISK_FULL | NOT_WRITABLE:
            raise
