"""Litter of runs that died: the directories into which a session was laid out for the CLI."""

import shutil
import time

from config.settings import settings

OLD = 24 * 3600  # seconds; longer than any turn


def sweep_directories() -> int:
    """Remove what old runs left in our own temporary directory; returns how many."""
    scratch = settings().agent_home / "tmp"
    removed = 0
    for entry in scratch.iterdir() if scratch.is_dir() else ():
        if time.time() - entry.lstat().st_mtime > OLD:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
            removed += 1
    return removed
