"""Waiting for something to become true, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

POLL = 0.02  # seconds
REST = 9  # times as long as the look itself took: who waits is not to be what is waited for
LONGEST = 0.2  # seconds
PATIENCE = 4  # times as long as a quiet machine takes: a busy one fails no test

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], *, timeout: float = 10.0, description: str) -> T:
    """What `predicate` answers, as soon as that is true; fails with a sentence if not in time.

    `timeout` is what a quiet machine needs at most, in seconds.
    """
    deadline = time.monotonic() + timeout * PATIENCE
    while True:
        looked = time.monotonic()
        if answer := predicate():
            return answer
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"after {timeout * PATIENCE:g} s still waiting: {description}")
        time.sleep(min(max(POLL, REST * (now - looked)), LONGEST))
