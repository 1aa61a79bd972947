"""The box that an agent runs in, where bubblewrap is present: its own processes, its own
view of the disk, in which only the workspace and the CLI's own directories can be written."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

from config.settings import settings


@cache
def usable() -> str | None:
    """The path of a bubblewrap that works on this machine, or None."""
    if settings().sandbox == "off" or not (found := shutil.which("bwrap")):
        return None
    probe = [found, *NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "true"]
    try:
        done = subprocess.run(probe, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if done.returncode == 0 else None


NAMESPACES = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent"]


def box(workspace: Path) -> list[str]:
    """The command to put before the CLI's; empty where there is no box."""
    if not (bwrap := usable()):
        return []
    return [
        bwrap,
        *NAMESPACES,
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        *("--tmpfs", "/tmp"),  # noqa: S108 - a private one
        *("--bind", str(settings().agent_home), str(settings().agent_home)),
        *("--bind", str(workspace), str(workspace)),
        *("--chdir", str(workspace)),
        "--",
    ]
