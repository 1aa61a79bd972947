"""What a process asks before it writes where no row can refuse it: does it still hold its job?

Postgres refuses what a replaced attempt writes; a workspace cannot. A process that was
paused past its lease finds out here, before it touches what is another attempt's by now.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from worker.errors import Stopped

_left: ContextVar[Callable[[], float] | None] = ContextVar("left", default=None)


@contextmanager
def fenced(left: Callable[[], float]) -> Generator[None]:
    """Inside the block `check` asks `left`: seconds for which the hold is certain."""
    token = _left.set(left)
    try:
        yield
    finally:
        _left.reset(token)


def check() -> None:
    """Raises Stopped when the hold is over. Where nothing is held, nothing is refused."""
    left = _left.get()
    if left is not None and left() <= 0:
        raise Stopped("lease_lost")
