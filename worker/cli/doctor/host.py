"""What doctor sees of this host: the agent's CLI, its box, git, and the room that there is."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from config import egress
from config.settings import settings
from worker.cli.doctor.check import Check
from worker.text.units import size

LITTLE_DISK, NO_DISK = 2 * 10**9, 2 * 10**8  # bytes


def this_host() -> Iterator[Check]:
    """What a worker needs of the host that doctor runs on."""
    from worker.agent.version import cli_version, unsupported

    version = cli_version()
    if why := unsupported(version):
        yield Check("agent CLI", "warn" if version else "fail", why)
    else:
        yield Check("agent CLI", "ok", f"{version}, with which Baton is tested")
    yield from box_lines()
    yield egress_proxy()
    from worker.workspace import confined

    if git := shutil.which("git"):
        held = (
            "held to a workspace and its repository by the kernel (Landlock)"
            if confined.available()
            else "not held to a workspace: that takes Linux 6.2 with Landlock, and git in /usr"
        )
        yield Check("git", "ok", f"{git}, {held}")
    else:
        yield Check(
            "git", "fail", "it is not on PATH: install it, workspaces are kept with it."
        )
    yield _writable("workspaces", settings().workspaces)
    yield _writable("agent home", settings().agent_home)
    yield _disk(settings().workspaces)


def box_lines() -> Iterator[Check]:
    """A box is made where turns have theirs, and tried from inside."""
    from worker.sandbox import box, syscalls

    mode = settings().sandbox
    yield Check("sandbox", "warn" if mode == "off" else "ok", f"{mode}: {box.MODES[mode]}")
    if mode != "off" and shutil.which("bwrap") and (why := _untried()):
        yield Check("bubblewrap", "warn", why)
        return
    try:
        here = box.found()
    except OSError as exc:
        yield Check("bubblewrap", "warn", f"cannot be tried: {exc}")
        return
    if here.way is None:
        yield Check("bubblewrap", "fail" if here.refused else "warn", here.why)
    else:
        owner = "" if here.way.owner is None else f", as uid {here.way.owner}"
        yield Check("bubblewrap", "ok", f"agents run in a box that holds{owner}")
    for line in here.lines:
        yield Check("box", "ok" if line.could is False else "warn", str(line))
    if here.way and not syscalls.program():
        yield Check("seccomp", "warn", syscalls.MISSING)


def egress_proxy() -> Check:
    """The proxy of this host, through which its agents ask their model."""
    if egress.listens():
        let = settings().egress or "nothing"
        return Check(
            "egress", "ok", f"a proxy has the key; beside the model agents reach {let}"
        )
    return Check(
        "egress", "warn", f"No proxy answers in {egress.home()}: a host with workers needs `egress`"
        " of the Procfile."
    )  # fmt: skip


def _untried() -> str | None:
    """Why no box is to be tried yet: what this user makes would be in the way of workers that are
    another's. What they have made themselves is there to be used."""
    from worker.sandbox import home

    places = [
        settings().workspaces,
        home.turns(),
        *([home.files()] if os.geteuid() == 0 else []),
    ]
    missing = next((place for place in places if not place.is_dir()), None)
    return f"is tried once {missing} is there: a worker makes it" if missing else None


def _writable(name: str, folder: Path) -> Check:
    there = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as exc:
        return Check(name, "fail", f"{there} cannot be written: {exc.strerror or exc}.")
    return Check(name, "ok", f"{folder}" if there == folder else f"{folder} will be made")


def _disk(folder: Path) -> Check:
    usage = shutil.disk_usage(_existing(folder))
    told = f"{size(usage.free)} free of {size(usage.total)}"
    if usage.free < NO_DISK:
        return Check("disk", "fail", f"{told}: make room, or the next turn fails.")
    return Check("disk", "warn" if usage.free < LITTLE_DISK else "ok", told)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next((path for path in (folder, *folder.parents) if path.is_dir()), Path("/"))
