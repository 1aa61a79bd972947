"""Where Baton lies and keeps its data here, and its Procfile: one `name: command` a line.

A checkout is itself the place: whatever is called inside of it belongs to it. An installed
Baton has its code where nothing may be written, so its place is the directory it is called in.
"""

import re
from pathlib import Path

CODE = Path(__file__).parents[2]  # a checkout, or what pip installs into
PACKED = Path(__file__).parents[1] / "Procfile"  # where Baton is installed
LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")


class BadProcfile(Exception):
    """The Procfile cannot be read; the text names the line."""


def checkout() -> Path | None:
    """The checkout that this code lies in; None where Baton is installed."""
    return None if PACKED.exists() else CODE


def read_procfile(root: Path) -> dict[str, str]:
    """The commands by name, in the file's order: of `root`, or else of Baton itself.

    Raises BadProcfile.
    """
    path = root / "Procfile"
    if not path.exists():
        path = PACKED if PACKED.exists() else CODE / "Procfile"
    try:
        lines = path.read_text().splitlines()
    except OSError as exc:
        raise BadProcfile(f"{path} cannot be read: {exc.strerror}.") from exc
    commands = dict[str, str]()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if not match or match[1] in commands:
            raise BadProcfile(f"{path}, line {number}: write `name: command`, each name once.")
        commands[match[1]] = match[2]
    return commands
