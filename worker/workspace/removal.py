"""Removing directories that an agent may have written."""

import os
import shutil
import stat
import subprocess
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path


def remove(place: Path) -> int:
    """Remove a directory, or a link in its place; returns how many files it had."""
    if not os.path.lexists(place):
        return 0
    if place.is_symlink() or not place.is_dir():
        place.unlink()
        return 1
    files = sum(
        not entry.is_dir(follow_symlinks=False)
        for folder in folders(place)
        for entry in _entries(folder)
    )
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


def open_up(place: Path) -> None:
    """Open all directories below to ourselves, as far as they are ours."""
    for folder in folders(place):
        with suppress(OSError):
            let_in(folder)


def folders(place: Path) -> Generator[Path]:
    """The directory and all below it, each before what it holds; links are not followed."""
    todo = [place]
    while todo:
        folder = todo.pop()
        yield folder
        todo += [
            Path(each.path) for each in _entries(folder) if each.is_dir(follow_symlinks=False)
        ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []
