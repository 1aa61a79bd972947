"""Litter: directories that dead runs left, and keys of ours that lack a time to live."""

import os
import tempfile
import time
from datetime import timedelta
from typing import Any

from config.settings import settings
from worker.live.checkpoints import CHECKPOINTS, PROGRESS, client
from worker.workspace import removal

OURS = ((CHECKPOINTS, "claude:session:*"), (PROGRESS, "events:*"), (PROGRESS, "progress:*"))
OLD = timedelta(hours=24)
AT_ONCE = 500  # keys that are looked at in one go


def sweep_directories(until: float = float("inf")) -> int:
    """Remove what old runs left in our own temporary directory; returns how many. None is
    removed after `until` (monotonic seconds)."""
    scratch = settings().agent_home / "tmp"
    if not scratch.is_dir():
        return 0
    with tempfile.TemporaryFile(dir=scratch) as newest:
        now = os.fstat(newest.fileno()).st_mtime  # by the clock that dated the others
    old = max(OLD, 2 * settings().turn_timeout).total_seconds()
    removed = 0
    for entry in scratch.iterdir():
        if time.monotonic() > until:
            break
        if now - entry.lstat().st_mtime > old:
            if entry.is_dir() and not entry.is_symlink():
                removal.discard(entry)
            else:
                entry.unlink(missing_ok=True)
            removed += 1
    return removed


def sweep_checkpoints(until: float = float("inf")) -> int:
    """Give every key of ours in Redis an end that has none; returns how many had none. None is
    looked at after `until` (monotonic seconds).

    There should be none: a key is written together with its time to live.
    """
    mended = 0
    for database, ours in OURS:
        redis: Any = client(database)
        cursor, begun = 0, False
        while (cursor or not begun) and time.monotonic() < until:
            cursor, keys = redis.scan(cursor, match=ours, count=AT_ONCE)
            begun = True
            with redis.pipeline(transaction=False) as asked:
                for key in keys:
                    asked.ttl(key)
                ends = asked.execute()
            for key in (key for key, end in zip(keys, ends, strict=True) if end == -1):
                redis.expire(key, settings().checkpoint_ttl)
                mended += 1
    return mended
