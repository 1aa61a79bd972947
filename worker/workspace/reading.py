"""What is read of a workspace's files, for people and for models: whatever lies there, something
bounded comes of it, and no error."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from worker.text.file_names import MOST, first_of
from worker.text.storable import plain
from worker.workspace import beneath

CODE_OF_OTHERS = "node_modules"


def files(place: Path, most: int = MOST) -> list[str]:
    """Paths of the files, those of each directory before those of the ones in it; hidden ones
    left out."""
    found, todo = list[str](), [""]
    with suppress(OSError), beneath.at(place) as base:
        while todo and len(found) < most:
            folder = todo.pop()
            here, below = _shown(base, folder)
            found += (plain(f"{folder}{name}").replace("\n", " ") for name in here)
            todo += (f"{folder}{name}/" for name in reversed(below))
    return first_of(found, most=most)


def _shown(base: int, folder: str) -> tuple[list[str], list[str]]:
    """The names in a directory that are no directories', and those that are."""
    here, below = list[str](), list[str]()
    with suppress(OSError), beneath.listed(base, folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir(follow_symlinks=False):
                here.append(entry.name)
            elif entry.name != CODE_OF_OTHERS:
                below.append(entry.name)
    return sorted(here), sorted(below)


def text(file: Path, limit: int = 10_000) -> str:
    """The beginning of a file, in characters; empty unless it is a plain file that can be read."""
    with suppress(OSError):
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(opened, errors="replace") as reader:
            if stat.S_ISREG(os.fstat(opened).st_mode):
                return plain(reader.read(limit))
    return ""
