"""When to try again: within a call (seconds, tenacity) and between attempts (minutes, `run_at`).

The third layer is the CLI's own and bounded by CLAUDE_CODE_MAX_RETRIES.
"""

import math
import random
from collections.abc import Callable
from datetime import timedelta

import redis
import tenacity

from config.settings import settings
from db.core.outages import is_stopped, may_pass

MOST_STEPS = 12  # from the shortest first pause that may be set to beyond the longest last one
PAUSE = tenacity.wait_random_exponential(multiplier=0.1, max=2)
ENOUGH = 10.0  # seconds; what is then still stopped is for another attempt


def _is_blip(exc: BaseException) -> bool:
    return may_pass(exc) or isinstance(exc, redis.ConnectionError)


BLIP = tenacity.retry_if_exception(_is_blip)

# A blip on the way to Postgres or Redis. Only around calls that are safe to repeat.
on_blip = tenacity.retry(
    retry=BLIP, wait=PAUSE, stop=tenacity.stop_after_delay(ENOUGH), reraise=True
)


def while_held(left: Callable[[], float]) -> tenacity.Retrying:
    """As `on_blip`, but an outage is waited for as long as a hold is certain: `left()` seconds. Call
    it with what to do."""
    over = _over(left)

    def stop(state: tenacity.RetryCallState) -> bool:
        # Postgres answers, so the hold is renewed and would never end. A lock goes away, or a quiet
        # moment comes; a trigger that takes longer than statement_timeout stays as slow.
        long = (state.seconds_since_start or 0.0) >= ENOUGH
        return over(state) or (long and is_stopped(state.outcome and state.outcome.exception()))

    return tenacity.Retrying(retry=BLIP, wait=PAUSE, stop=stop, reraise=True)


def awaited_while_held(left: Callable[[], float], *, within: float) -> tenacity.AsyncRetrying:
    """As `while_held`, for what is awaited; not begun again after `within` seconds."""
    stop = _over(left, within)
    return tenacity.AsyncRetrying(retry=BLIP, wait=PAUSE, stop=stop, reraise=True)


def _over(
    left: Callable[[], float], within: float = math.inf
) -> Callable[[tenacity.RetryCallState], bool]:
    return lambda state: left() <= 0 or (state.seconds_since_start or 0.0) >= within


def backoff(attempts: int) -> timedelta:
    """How long after the n-th spent attempt the next begins: full jitter under a cap.

    The caps are 15 s, 1 min, 4 min, 16 min and then an hour by default; never less than a
    second.
    """
    steps = min(max(0, attempts - 1), MOST_STEPS)
    cap = min(settings().backoff_first * 4**steps, settings().backoff_max)
    return max(timedelta(seconds=1), cap * random.random())
