"""What lies in BATON_AGENT_HOME: programs and files of ours, and the directories of turns."""

import os
from pathlib import Path
from uuid import UUID

from config.settings import settings
from worker.failures.errors import DISK_FULL, EXHAUSTED, AgentFailed


def own_directory(minted: UUID) -> Path:
    """The directory of the turn that mints this session, while it runs."""
    return turns() / str(minted)


def turns() -> Path:
    """Where the directories of turns are. The agent is told of places as they are resolved:
    its box has no link that would lead there."""
    return settings().agent_home.resolve() / "tmp"


def files() -> Path:
    """Where programs and files of ours are."""
    return settings().agent_home.resolve() / "bin"


def unwritable(exc: OSError) -> Exception:
    """Why nothing can be made there: itself, if the host has no room or no processes left."""
    if exc.errno in DISK_FULL | EXHAUSTED:
        return exc
    what = f"{exc.strerror}: {exc.filename}" if exc.filename else exc.strerror
    return AgentFailed(
        "agent_home_unwritable",
        f"{settings().agent_home} cannot be written ({what}): correct its permissions,"
        " or BATON_AGENT_HOME",
    )


def put(name: str, said: str | bytes, *, mode: int) -> Path:
    """Let a file of ours say this; nobody sees half of it. Returns where it is. Raises OSError."""
    path = files() / name
    said = said.encode(errors="surrogateescape") if isinstance(said, str) else said
    if not path.exists() or path.read_bytes() != said:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(said)
        fresh.chmod(mode)
        fresh.replace(path)
    return path
