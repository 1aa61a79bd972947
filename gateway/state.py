"""What one gateway process has: its pool, its reader of Redis, its feeds, its name."""

import asyncio
import os
import socket
from dataclasses import dataclass, field

from db.core.async_pool import SIZE, Pool
from db.core.pool import SIZE as PLAIN
from gateway.access.limits import Limits
from gateway.access.shares import Shares
from gateway.feed.feeds import Feeds
from worker.live.tickets import Tickets

NAME = f"{socket.gethostname()}:{os.getpid()}"


@dataclass(frozen=True, slots=True)
class State:
    """Made when the application starts, and gone with it."""

    pool: Pool
    feeds: Feeds
    tickets: Tickets
    limits: Limits
    # One user's requests leave half of each pool to the others.
    asks: Shares = field(default_factory=lambda: Shares(SIZE // 2))
    acts: Shares = field(default_factory=lambda: Shares(PLAIN // 2))
    # Set once the database had what this gateway needs: a newer one serves it too.
    migrated: asyncio.Event = field(default_factory=asyncio.Event)
