"""Where the egress proxy listens: a Unix socket in a directory of its own (BATON_EGRESS_HOME).

    .baton/egress/proxy.sock

Boxes are shown the directory and not the socket: a proxy that is started anew puts a new socket
there. A socket's path may have 107 bytes, and a checkout's may have more: so it is named by way
of the directory as it is open here.
"""

import contextlib
import os
import socket
from collections.abc import Generator
from pathlib import Path

from config.settings import settings

NAME = "proxy.sock"
SEEN_BY = 0o711  # who is another user in a box finds the socket, and nothing else


def home() -> Path:
    """The directory, as it is resolved."""
    return settings().egress_home.resolve()


def make_home() -> Path:
    """The directory, made if need be. Raises OSError."""
    (place := home()).mkdir(parents=True, exist_ok=True)
    place.chmod(SEEN_BY)
    return place


@contextlib.contextmanager
def by_short_name(directory: Path, name: str = NAME) -> Generator[str]:
    """A name of the socket that is short enough, inside the block."""
    held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{held}/{name}"
    finally:
        os.close(held)


def listens(directory: Path | None = None) -> bool:
    """Whether a proxy answers at the socket, here or in another's directory."""
    try:
        with (
            by_short_name(directory or home()) as path,
            socket.socket(socket.AF_UNIX) as asking,
        ):
            asking.settimeout(2)
            asking.connect(path)
    except OSError:
        return False
    return True
