"""The box that an agent runs in, where bubblewrap is present.

    /                                   read only
    HOME, .baton, every workspace and
    agent directory, /tmp, secrets, a
    remote of workspaces on this host   empty, but for programs on PATH; what is written there
                                        is gone with the turn
    the project's own workspace         as outside; read only in a turn that only reads
    the turn's own directory            the CLI's configuration and temporary files

It has processes of its own. The network is the worker's: the agent must reach the model.
"""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from uuid import UUID

from config.settings import settings
from worker import transport

NAMESPACES = ["--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent"]
TMP = Path("/tmp")  # noqa: S108 - hidden, not used
SECRETS = (Path("/run/secrets"), Path("/var/run/secrets"))  # where containers are given them
OURS = Path(".baton")  # what `baton up` keeps in a checkout: Postgres, Redis, every workspace
SETTINGS_FILE = Path(".env")
WITH_KEYS = (".local", ".cargo")


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


def box(workspace: Path, *, own: Path, cli: Path, writable: bool) -> list[str]:
    """The command to put before the CLI's; empty where there is no box.

    `own` is the turn's own directory; it and the workspace are there when the box starts.
    """
    if not (bwrap := usable()):
        return []
    hidden = _hidden()
    masked = SETTINGS_FILE.absolute()
    return [
        bwrap,
        *NAMESPACES,
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--proc", "/proc"),
        *(word for path in hidden for word in ("--tmpfs", str(path))),
        *(("--ro-bind", os.devnull, str(masked)) if _masks(masked, hidden) else ()),
        *(word for path in _tools(cli, hidden) for word in ("--ro-bind", path, path)),
        *("--bind", str(own), str(own)),
        *("--bind" if writable else "--ro-bind", str(workspace), str(workspace)),
        *("--chdir", str(workspace)),
        "--",
    ]


def own_directory(minted: UUID) -> Path:
    """The directory of the turn that mints this session, while it runs."""
    return settings().agent_home / "tmp" / str(minted)


def _hidden() -> list[Path]:
    """Directories that the agent finds empty, none inside another."""
    ours = (settings().workspaces, settings().agent_home, OURS.absolute())
    remote = transport.folder()
    theirs = (TMP, Path.home(), *SECRETS, *((remote,) if remote else ()))
    wanted = {path.resolve() for path in (*ours, *theirs) if path.is_dir()} - {Path("/")}
    return sorted(p for p in wanted if not any(o in p.parents for o in wanted))


def _masks(file: Path, hidden: list[Path]) -> bool:
    return file.is_file() and not any(path in file.resolve().parents for path in hidden)


def _tools(cli: Path, hidden: list[Path]) -> list[str]:
    """What is shown of hidden directories: the CLI's own, and programs on PATH with what lies
    around them (`~/.pyenv` for `~/.pyenv/shims`), unless keys are known to lie there too."""
    folders = [cli.resolve().parent]
    for folder in map(Path, os.get_exec_path()):
        around = folder.parent
        alone = (
            around.name in WITH_KEYS or around in hidden or around in OURS.absolute().parents
        )
        folders.append(folder if alone else around)
    return [
        str(folder)
        for folder in dict.fromkeys(folders)
        if folder.is_absolute()
        and folder.is_dir()
        and any(path in folder.resolve().parents for path in hidden)
    ]
