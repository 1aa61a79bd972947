"""Litter: directories that dead runs left, and keys of ours that lack a time to live."""

import os
import tempfile
from datetime import timedelta
from typing import Any

from config.settings import settings
from worker import removal
from worker.checkpoints import CHECKPOINTS, PROGRESS, client

OURS = ((CHECKPOINTS, "claude:session:*"), (PROGRESS, "events:*"), (PROGRESS, "progress:*"))
OLD = timedelta(hours=24)


def sweep_directories() -> int:
    """Remove what old runs left in our own temporary directory; returns how many."""
    scratch = settings().agent_home / "tmp"
    if not scratch.is_dir():
        return 0
    with tempfile.TemporaryFile(dir=scratch) as newest:
        now = os.fstat(newest.fileno()).st_mtime  # by the clock that dated the others
    old = max(OLD, 2 * settings().turn_timeout).total_seconds()
    removed = 0
    for entry in scratch.iterdir():
        if now - entry.lstat().st_mtime > old:
            if entry.is_dir() and not entry.is_symlink():
                removal.discard(entry)
            else:
                entry.unlink(missing_ok=True)
            removed += 1
    return removed


def sweep_checkpoints() -> int:
    """Give every key of ours in Redis an end that has none; returns how many had none.

    There should be none: a key is written together with its time to live.
    """
    mended = 0
    for database, ours in OURS:
        redis: Any = client(database)
        for key in redis.scan_iter(match=ours, count=500):
            if redis.ttl(key) == -1:
                redis.expire(key, settings().checkpoint_ttl)
                mended += 1
    return mended
