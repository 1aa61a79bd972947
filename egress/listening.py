"""The proxy's socket: under the name that all know, for the one user who is an agent here.

A proxy that starts while another serves takes the name over; who is connected to the other one
stays so. It is taken away at the end only by whose it still is.
"""

import contextlib
import os
import socket
from collections.abc import Generator
from uuid import uuid4

from config import egress
from config.settings import settings

BACKLOG = 256


@contextlib.contextmanager
def listening() -> Generator[socket.socket]:
    """A socket that listens, found under its name until the block ends. Who uses it closes it.
    Raises OSError."""
    home, fresh = egress.make_home(), f".{uuid4().hex}"
    place = home / egress.NAME
    ours = socket.socket(socket.AF_UNIX)
    with egress.by_short_name(home, fresh) as path:
        ours.bind(path)
    (home / fresh).chmod(0o600)
    if os.geteuid() == 0:
        os.chown(home / fresh, settings().agent_uid, -1)
    ours.listen(BACKLOG)
    (home / fresh).replace(place)
    number = place.stat().st_ino
    try:
        yield ours
    finally:
        with contextlib.suppress(FileNotFoundError):
            if place.stat().st_ino == number:
                place.unlink()
