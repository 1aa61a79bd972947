"""How often somebody may: counted in Redis for all gateways, in this process where Redis is away."""

import time
from collections import defaultdict, deque

import redis.asyncio as redis

CONNECTIONS = 10  # at a time, of one user
HELLOS = (20, 60)  # of one address, in seconds
MESSAGES = (30, 10)  # on one connection, in seconds
FRAME = 256 * 1024  # bytes of one that a client sends
TOO_LONG = f"A frame may have {FRAME // 1024} kB."


def is_too_long(frame: str) -> bool:
    """Whether a client's frame has more bytes than one may have."""
    return len(frame) > FRAME or (len(frame) > FRAME // 4 and len(frame.encode()) > FRAME)


class Window:
    """So many in so many seconds, of one who is known here."""

    def __init__(self, most: int, seconds: int) -> None:
        self.most, self.seconds = most, seconds
        self.at: deque[float] = deque()

    def wait(self) -> float:
        """Seconds until the next one is allowed; 0: it is, and counts."""
        now = time.monotonic()
        while self.at and self.at[0] <= now - self.seconds:
            self.at.popleft()
        if len(self.at) >= self.most:
            return self.at[0] + self.seconds - now
        self.at.append(now)
        return 0.0


class Limits:
    """The limit of hellos. `client` is Redis; None: there is none."""

    def __init__(self, client: redis.Redis | None) -> None:
        self._client = client
        self._here: dict[str, Window] = defaultdict(lambda: Window(*HELLOS))

    async def hello(self, address: str) -> float:
        """Seconds until this address may say hello; 0: now."""
        most, seconds = HELLOS
        if self._client is not None:
            name = f"hellos:{address}"
            try:
                async with self._client.pipeline(transaction=True) as pipe:
                    pipe.set(name, 0, ex=seconds, nx=True)
                    pipe.incr(name)
                    pipe.ttl(name)
                    _, count, left = await pipe.execute()
            except (redis.RedisError, OSError):
                pass
            else:
                return float(max(left, 1)) if count > most else 0.0
        if len(self._here) > 10_000:
            self._here.clear()
        return self._here[address].wait()
