"""Removing directories that an agent may have written."""

import os
import shutil
import stat
from pathlib import Path


def remove(place: Path) -> int:
    """Remove a directory, or a link in its place; returns how many files it had."""
    if not os.path.lexists(place):
        return 0
    if place.is_symlink() or not place.is_dir():
        place.unlink()
        return 1
    files = sum(len(names) for _, _, names in os.walk(place))
    try:
        shutil.rmtree(place)
    except OSError:  # an agent may close its directories
        _open_up(place)
        shutil.rmtree(place)
    return files


def empty(place: Path) -> int:
    """Remove all that a directory has in it; returns how many files. It stays: it may be a mount."""
    if place.is_symlink() or not place.is_dir():
        return remove(place)
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        place.chmod(stat.S_IRWXU)
    return sum(remove(each) for each in list(place.iterdir()))


def _open_up(place: Path) -> None:
    place.chmod(stat.S_IRWXU)
    for folder, folders, _ in os.walk(place):
        for name in folders:
            if not (path := Path(folder, name)).is_symlink():
                path.chmod(stat.S_IRWXU)
