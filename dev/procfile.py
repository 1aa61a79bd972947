"""Reading a Procfile: one `name: command` a line, as on hosts that run them."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(.+)")


class BadProcfile(Exception):
    """The Procfile cannot be read; the text names the line."""


def read_procfile(root: Path) -> dict[str, str]:
    """The commands by name, in the file's order: of `root`, or else of Baton itself.

    Raises BadProcfile.
    """
    path = root / "Procfile"
    path = path if path.exists() else CHECKOUT / "Procfile"
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
