"""A version's patch, as far as a gateway holds one: it is whole in memory until it is sent."""

import io
from typing import Any

from gateway.problems import Problem
from worker.failures.errors import GitEnded
from worker.workspace.diff import Diff

MOST = 32 * 2**20  # bytes
WITHIN = 30.0  # seconds that git may take for one


class _Longer(Exception):
    """The patch is longer than a gateway holds."""


class _Room(io.BytesIO):
    """Takes in so many bytes. Raises _Longer for more."""

    def write(self, data: Any, /) -> int:
        if self.tell() + len(data) > MOST:
            raise _Longer
        return super().write(data)


def patch_of(change: Diff) -> bytes:
    """The patch. Raises Problem 413 for one that is too long, or takes git too long."""
    room = _Room()
    try:
        change.pour(room, within=WITHIN)
    except _Longer:
        raise _too_long(f"The patch is longer than {MOST // 2**20} MB") from None
    except GitEnded:
        raise _too_long(f"The patch is not made in {WITHIN:g} s") from None
    return room.getvalue()


def _too_long(why: str) -> Problem:
    return Problem(
        413, "patch_too_long", f"{why}: use `baton diff`, or name a version nearer to it."
    )
