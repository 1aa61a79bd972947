"""Removing directories that an agent may have written."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

from worker.workspace import beneath


def remove(place: Path) -> int:
    """Remove a directory, or a link in its place; returns how many files it had."""
    if not os.path.lexists(place):
        return 0
    if place.is_symlink() or not place.is_dir():
        place.unlink()
        return 1
    files = _count(place)
    discard(place)
    if os.path.lexists(place):
        shutil.rmtree(place)  # and says why it cannot
    return files


def discard(place: Path) -> None:
    """Remove a directory, as far as that can be done."""
    try:
        shutil.rmtree(place, ignore_errors=True)
    except RecursionError:  # it goes no deeper than its stack
        _rm(place)
    if os.path.lexists(place):  # an agent may close its directories
        if not place.is_symlink():
            open_up(place)
        _rm(place)


def _rm(place: Path) -> None:
    """However deep directories are nested."""
    subprocess.run(("rm", "-rf", "--", place), capture_output=True, check=False)


def empty(place: Path) -> int:
    """Remove all that a directory has in it; returns how many files. It stays: it may be a mount."""
    if place.is_symlink() or not place.is_dir():
        return remove(place)
    let_in(place)
    return sum(remove(each) for each in list(place.iterdir()))


def let_in(place: Path, want: int = os.R_OK | os.W_OK | os.X_OK) -> None:
    """Open a directory to ourselves, whatever its mode was made. Raises OSError."""
    if not os.access(place, want):
        place.chmod(stat.S_IRWXU)


def open_to_us(here: int, want: int = os.R_OK | os.W_OK | os.X_OK) -> None:
    """As `let_in`, of a directory that was reached by `beneath`."""
    if not beneath.may(here, want):
        beneath.change_mode(here, stat.S_IRWXU)


def open_up(place: Path) -> None:
    """Open all directories below to ourselves, as far as they are ours."""
    for _ in _walk(place, open_to_us):
        pass


def _count(place: Path) -> int:
    """How many files lie there."""
    return sum(not entry.is_dir(follow_symlinks=False) for entry in _walk(place))


def _walk(
    place: Path, reached: Callable[[int], None] | None = None
) -> Generator[os.DirEntry[str]]:
    """All that lies below, links not followed; each directory is `reached` before it is listed."""
    todo = [""]
    with suppress(OSError), beneath.at(place) as base:
        while todo:
            folder = todo.pop()
            if reached:
                with suppress(OSError), beneath.folder(base, folder) as here:
                    reached(here)
            with suppress(OSError), beneath.listed(base, folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(f"{folder}{entry.name}/")
                    yield entry
