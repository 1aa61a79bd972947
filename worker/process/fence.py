"""What a process asks before it writes where no row can refuse it: does it still hold its job?

Postgres refuses what a replaced attempt writes; a workspace cannot. A process that was
paused past its lease finds out here, before it touches what is another attempt's by now.
What it starts for the job carries the attempt, so that it is found when the process dies.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import UUID

from worker.failures.errors import Stopped


@dataclass(frozen=True, slots=True)
class _Hold:
    left: Callable[[], float]
    attempt: UUID | None


_held: ContextVar[_Hold | None] = ContextVar("held", default=None)


@contextmanager
def fenced(left: Callable[[], float], *, attempt: UUID | None = None) -> Generator[None]:
    """Inside the block the attempt holds its job, for `left()` seconds with certainty."""
    token = _held.set(_Hold(left, attempt))
    try:
        yield
    finally:
        _held.reset(token)


def check() -> None:
    """Raises Stopped when the hold is over. Where nothing is held, nothing is refused."""
    held = _held.get()
    if held and held.left() <= 0:
        raise Stopped("lease_lost")


def left() -> float:
    """Seconds for which the hold is certain; 0 where nothing is held."""
    held = _held.get()
    return held.left() if held else 0.0


def mark() -> dict[str, str]:
    """What the environment of a process says that works for the job which is held."""
    held = _held.get()
    return {"BATON_ATTEMPT": str(held.attempt)} if held and held.attempt else {}
