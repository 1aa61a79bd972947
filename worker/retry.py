"""When to try again: within a call (seconds, tenacity) and between attempts (minutes, `run_at`).

The third layer is the CLI's own and bounded by CLAUDE_CODE_MAX_RETRIES.
"""

import random
from datetime import timedelta

import redis
import tenacity

from config.settings import settings
from db.pool import AWAY

# A blip on the way to Postgres or Redis. Only around calls that are safe to repeat.
on_blip = tenacity.retry(
    retry=tenacity.retry_if_exception_type((*AWAY, redis.ConnectionError)),
    wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
    stop=tenacity.stop_after_delay(10),
    reraise=True,
)


def backoff(attempts: int) -> timedelta:
    """How long after the n-th spent attempt the next begins: full jitter under a cap.

    The caps are 15 s, 1 min, 4 min, 16 min by default; never less than a second.
    """
    cap = settings().backoff_first * 4 ** max(0, attempts - 1)
    return max(timedelta(seconds=1), cap * random.random())
