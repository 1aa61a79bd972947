"""Waiting for something to become true, instead of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

POLL = 0.02  # seconds

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], *, timeout: float = 10.0, description: str) -> T:
    """What `predicate` answers, as soon as that is true; fails with a sentence after `timeout` s."""
    deadline = time.monotonic() + timeout
    while not (answer := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s still waiting: {description}")
        time.sleep(POLL)
    return answer
