"""The agent's name in its box, where its uid is another than the worker's.

The host knows no user of that uid, and many programs ask for one: `whoami`, ssh, Python's
getpass, Node's os.userInfo(). So the box has an /etc/passwd and an /etc/group of its own: the
host's, with one line more.
"""

import os
from pathlib import Path

from worker.sandbox import home

NAME = "agent"


def names_of(uid: int) -> list[str]:
    """What shows the agent's name in the box, as arguments of bubblewrap. Raises OSError."""
    lines = {
        "passwd": f"{NAME}:x:{uid}:{uid}:{NAME}:{os.environ.get('HOME', '/')}:/bin/sh",
        "group": f"{NAME}:x:{uid}:",
    }
    words: list[str] = []
    for name, line in lines.items():
        if (known := Path("/etc", name)).is_file():
            told = known.read_text(errors="surrogateescape").splitlines()
            others = [each for each in told if each.split(":")[2:3] != [str(uid)]]
            ours = home.put(name, "\n".join((*others, line, "")), mode=0o644)
            words += ("--ro-bind", str(ours), str(known))
    return words
