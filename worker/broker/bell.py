"""The relay's bell: whoever frees a slot or has asked for a job rings it, and the relay looks at once.

It is a channel of Redis, so there is no key, and a ring that nobody hears is lost: the relay
looks every BATON_RELAY_POLL seconds anyway.
"""

import threading
from dataclasses import dataclass
from typing import Any

import redis

from config.log import log
from worker.broker.queues import BELL
from worker.live.checkpoints import PROGRESS, WAIT, client


def ring() -> None:
    """Wake the relays: a slot is free, or a job waits. A ring that nobody hears costs the time
    until their next look."""
    try:
        client(PROGRESS).publish(BELL, "")
    except redis.RedisError as exc:
        log.info("relay.not_rung", error=type(exc).__name__)


@dataclass
class Bell:
    """What listens to it, once it does."""

    listener: Any = None

    def wait(self, longest: float, ended: threading.Event) -> None:
        """Until it rings, or for `longest` seconds; no longer than that when Redis is away."""
        try:
            self._listen()
            if self.listener.get_message(timeout=longest):
                while self.listener.get_message(timeout=0):
                    pass  # many rings are one
        except redis.RedisError:
            self.listener = None
            ended.wait(longest)

    def _listen(self) -> None:
        if self.listener is None:
            self.listener = client(PROGRESS).pubsub(ignore_subscribe_messages=True)
            self.listener.subscribe(BELL)
            self.listener.get_message(timeout=WAIT)  # that it has subscribed
