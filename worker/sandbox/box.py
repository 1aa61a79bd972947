"""The box that an agent runs in, where bubblewrap is present: which way of making it holds here.

What a box shows of the disk: worker/sandbox/mounts.py. It has processes of its own and no
capability; the network is the worker's: the agent must reach the model.

    a worker that is not root    bwrap: layout, namespaces ──► CLI
    a worker that is root        bwrap: layout ──► setpriv: another uid, nothing to gain
                                 ──► bwrap: namespaces ──► CLI

Root would keep its rights on the host's files and settings, whatever it is shown and without
any capability: /proc/sys, /etc/shadow. So its agents are another user's, whom nothing belongs
to but the workspace and the turn's own directory (the keeper hands them over). Only who was
root can show that user what lies in directories that are closed to it: that comes first.

Ways are tried as a turn goes them, with a probe inside that tries to get out (worker/sandbox/probe.py).
The first that holds is taken. Where bubblewrap makes namespaces and none holds, no agent starts.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from os import geteuid
from pathlib import Path

import structlog

from config.settings import settings
from worker.failures.errors import AgentFailed
from worker.sandbox import probe
from worker.sandbox.home import unwritable
from worker.sandbox.leash import NO_BOX, Box
from worker.sandbox.mounts import layout
from worker.sandbox.user_names import names_of

log = structlog.get_logger()

# All of it dies with its first process, and that with the keeper. A signal of a parent's death
# would not do: bubblewrap, without capabilities, may not send it to what has another user.
PROCESSES = ("--unshare-pid", "--die-with-parent")
NAMESPACES = ("--unshare-user", *PROCESSES, "--unshare-ipc")
NO_RIGHTS = ("--cap-drop", "ALL")
NO_MORE_USERS = ("--disable-userns",)  # since bubblewrap 0.8
DEVICES = ("--dev", "/dev", "--proc", "/proc")
AS_OUTSIDE = ("--dev-bind", "/dev", "/dev", "--dev-bind", "/proc", "/proc")
AGAIN = 60.0  # seconds after which what did not hold is tried again
FREE = "agents have the worker's rights and see the whole disk"
SHARED_MEMORY = ("--perms", "1777", "--tmpfs", "/dev/shm")  # noqa: S108 - it is the box's own


@dataclass(frozen=True, slots=True)
class Way:
    """A way of making a box: what stands before the layout, and behind it. `owner` is the
    agent's uid where it is not the worker's."""

    before: tuple[str, ...]
    behind: tuple[str, ...]
    owner: int | None = None

    def box(self, workspace: Path, *, own: Path, cli: Path, writable: bool) -> Box:
        """A box with this layout."""
        files = layout(
            workspace, own=own, cli=cli, writable=writable, another=self.owner is not None
        )
        names = names_of(self.owner) if self.owner is not None else ()
        return Box(
            (*self.before, *files, *names, *self.behind),
            self.owner,
            (str(own), str(workspace)),
        )


@dataclass(frozen=True, slots=True)
class Found:
    """The way that holds here; or none, and why. `refused`: then no agent is to start."""

    way: Way | None
    why: str = ""
    refused: bool = False


class NoneHolds(Exception):
    """No way to a box holds here; the text says why, in a few words."""


def found() -> Found:
    """How agents are boxed on this host. Raises OSError where that cannot be tried."""
    if settings().sandbox == "off":
        return Found(None, f"off (BATON_SANDBOX): {FREE}")
    if not (bwrap := shutil.which("bwrap")):
        return Found(None, f"bubblewrap is missing: {FREE}; install it")
    return _looked(bwrap, settings().agent_uid, time.monotonic() // AGAIN)


def forget() -> None:
    """Let it be found out anew."""
    _way.cache_clear()
    _looked.cache_clear()


@lru_cache(maxsize=1)
def _looked(bwrap: str, uid: int, _period: float) -> Found:
    """What does not hold now may do so later; what holds does for good."""
    try:
        return Found(_way(bwrap, uid))
    except NoneHolds as exc:
        if probe.works([bwrap, *NAMESPACES]):
            return Found(None, _refusal(str(exc)), refused=True)
        return Found(None, f"bubblewrap does not work here ({exc}): {FREE}")


@cache
def _way(bwrap: str, uid: int) -> Way:
    """The first way that holds. Raises NoneHolds, with what is wrong with the last."""
    why = "setpriv is missing: install util-linux"
    for each in ways(bwrap, uid):
        if (fault := probe.fault(each.box, owner=each.owner)) is None:
            return each
        why = fault
    raise NoneHolds(why)


def _refusal(why: str) -> str:
    advice = (
        "correct that, or set BATON_SANDBOX=off, with which agents have the worker's rights"
    )
    if geteuid() == 0:
        advice = f"run the worker as another user than root, or {advice}"
    return f"No agent is started: its box does not hold here ({why}); {advice}."


def ways(bwrap: str, uid: int) -> Iterator[Way]:
    """The ways to a box, the best first; `uid` is the agent's where the worker is root."""
    if geteuid() != 0:
        for more in (NO_MORE_USERS, ()):
            yield Way((bwrap, *NAMESPACES, *more, *NO_RIGHTS), (*DEVICES, "--"))
    elif setpriv := shutil.which("setpriv"):
        become = _become(setpriv, uid)
        for more in (NO_MORE_USERS, ()):
            inner = (bwrap, *NAMESPACES, *more, *NO_RIGHTS, "--bind", "/", "/", *DEVICES, "--")
            yield Way((bwrap, *PROCESSES), (*AS_OUTSIDE, "--", *become, *inner), uid)
        behind = (*DEVICES, *SHARED_MEMORY, "--", *become)
        yield Way((bwrap, *PROCESSES, "--unshare-ipc"), behind, uid)


def _become(setpriv: str, uid: int) -> tuple[str, ...]:
    """What makes of root another, for good."""
    return (
        setpriv,
        *("--reuid", str(uid), "--regid", str(uid), "--clear-groups"),
        *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"),
    )


def box(workspace: Path, *, own: Path, cli: Path, writable: bool) -> Box:
    """The box of a turn; none where there can be none. Raises AgentFailed where one can be made
    and does not hold.

    `own` is the turn's own directory; it and the workspace are there when the box starts.
    """
    try:
        here = found()
        if here.refused:
            raise AgentFailed("box_refused", here.why)
        if here.way is None:
            return NO_BOX
        return here.way.box(workspace.resolve(), own=own.resolve(), cli=cli, writable=writable)
    except TimeoutError as exc:  # the host is busy
        raise AgentFailed("box_refused", f"No box could be tried: {exc}.") from exc
    except OSError as exc:
        raise unwritable(exc) from exc


def told() -> str | None:
    """The box of this host's agents, for the row of its worker."""
    try:
        here = found()
    except OSError:
        return "not tried"
    return "bubblewrap" if here.way else "refused" if here.refused else None


def warn_of_none() -> None:
    """Say it in the log, once, as a worker starts."""
    try:
        here = found()
    except OSError as exc:
        log.warning("box.not_tried", error=str(exc))
        return
    if here.refused:
        log.error("box.refused", why=here.why)
    elif here.way is None:
        log.warning("box.none", why=here.why)
