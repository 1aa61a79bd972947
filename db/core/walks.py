"""Going through a table in pages of constant cost, as far as the time for it reaches.

    a run      ├─page─┤├─page─┤├─page─┤│ time is up: `after` is where the next run goes on
    the next                           ├─page─┤├─page─┤ end: the one after it begins anew

A page is a transaction of its own. One in which nothing was to be done has cost time in vain: of
that there is less, so that a large table in which little happens is gone through slowly.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Key = list[Any]  # of the last row that a page has looked at
Page = Callable[[Key | None], tuple[int, Key | None]]


@dataclass
class Walk:
    """One run. `after`: behind which key it begins, and then, where it stopped; None: at an end."""

    after: Key | None = None
    until: float = float("inf")  # monotonic seconds
    in_vain: float = float("inf")  # seconds for pages in which nothing is to be done
    over: bool = False  # whether its time was up before it was through

    def go(self, page: Page) -> int:
        """Do page after page. Each is given the key of the one before it, and returns how much it
        did and its own; None after the last. Returns how much was done."""
        done, vain = 0, 0.0
        while True:
            began = time.monotonic()
            n, self.after = page(self.after)
            now = time.monotonic()
            done, vain = done + n, vain + (0.0 if n else now - began)
            self.over = self.after is not None and now > self.until
            if self.after is None or self.over or vain > self.in_vain:
                return done
