"""How much a workspace may hold: looked at before git is let loose on it.

A snapshot costs what lies there, and that is the agent's choice: 2 GB without content are 12 s of
a core. All counts, also what git ignores, but for repositories of the agent's own (`.git`), which
no snapshot looks into: bytes as files say that they are long, whatever is on the disk. The look ends where it is too much, so it costs no more than the bounds do.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from config.settings import settings
from worker.failures.errors import WorkspaceTooLarge
from worker.workspace import beneath
from worker.workspace.survey import REPOSITORY

SENTENCE = (
    "The workspace holds more than {most} {of}, with those that git ignores; nothing of this turn"
    " is kept: ask for less, remove some, or raise {setting}."
)


def check(root: Path) -> None:
    """Raises WorkspaceTooLarge where more lies there than BATON_WORKSPACE_… allow."""
    if why := excess(root):
        raise WorkspaceTooLarge(why)


def excess(root: Path) -> str | None:
    """What there is too much of, as a sentence for people."""
    most_files, most_bytes = settings().workspace_files, settings().workspace_bytes
    if not (most_files or most_bytes):
        return None
    files = total = 0
    for size in _sizes(root):
        files, total = files + 1, total + size
        if most_files and files > most_files:
            return SENTENCE.format(
                most=most_files, of="files and directories", setting="BATON_WORKSPACE_FILES"
            )
        if most_bytes and total > most_bytes:
            return SENTENCE.format(
                most=most_bytes, of="bytes of files", setting="BATON_WORKSPACE_BYTES"
            )
    return None


def _sizes(root: Path) -> Iterator[int]:
    """Bytes of each that lies there; a directory has none, nor what cannot be looked at."""
    todo = [""]
    with suppress(OSError), beneath.at(root) as base:
        while todo:
            folder = todo.pop()
            with suppress(OSError), beneath.listed(base, folder) as entries:
                for entry in entries:
                    if entry.name == REPOSITORY:
                        continue
                    size = _size(entry)
                    if size is None:
                        todo.append(f"{folder}{entry.name}/")
                    yield size or 0


def _size(entry: os.DirEntry[str]) -> int | None:
    """None: it is a directory."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return None
        return entry.stat(follow_symlinks=False).st_size
    except OSError:
        return 0  # it is gone, or nobody may look
