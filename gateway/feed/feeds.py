"""The projects that somebody here watches: the newest events of each, and who is to be woken.

A feed asks Postgres once for what is new, however many watch.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import psycopg_pool

from config.log import log as logger
from db.core.async_pool import Pool
from db.core.events import Row
from db.live import log
from gateway.feed.doorbell import Doorbell, Entry

KEPT = 1000  # events of a project, for those who are a little behind
CHAINS = 8  # that are listened to in a project: one a lane runs
SHOWN = 500  # progress entries of a chain, for those who come in the middle of a turn
LOOK = 0.5  # seconds between two looks at heads while Redis is away
IDLE = 5.0  # and while it rings
BEGINS = {"job.started"}
ENDS = {
    *("job.done", "job.failed", "job.cancelled", "job.quarantined"),
    *("job.waits", "job.parked", "job.rescued"),
}


def frame(row: Row) -> str:
    """An event as it is sent."""
    told = {
        "t": "event",
        "seq": row.seq,
        "type": row.type,
        "at": row.at.isoformat(),
        "body": row.body,
    }
    if row.job_id is not None:
        told["job"] = str(row.job_id)
    return json.dumps(told, ensure_ascii=False)


@dataclass(eq=False, slots=True)
class Feed:
    """One project's."""

    project: str
    head: int = 0
    events: deque[tuple[int, str]] = field(default_factory=lambda: deque(maxlen=KEPT))
    running: dict[str, str] = field(default_factory=dict[str, str])  # chain by job
    progress: dict[str, deque[Entry]] = field(default_factory=dict[str, deque[Entry]])
    watchers: set["Watcher"] = field(default_factory=set["Watcher"])
    refilling: asyncio.Lock = field(default_factory=asyncio.Lock)

    def after(self, last: int) -> list[tuple[int, str]] | None:
        """What came after number `last`, in order; None: that is not here any more."""
        if last >= self.head:
            return []
        if not self.events or self.events[0][0] > last + 1:
            return None
        return [one for one in self.events if one[0] > last]

    def add(self, rows: list[Row]) -> None:
        """These are next; what runs is noted, for its progress."""
        for row in rows:
            if row.seq != self.head + 1:
                self.events.clear()
            self.events.append((row.seq, frame(row)))
            self.head = row.seq
            job, chain = str(row.job_id), row.body.get("chain")
            if row.type in BEGINS and chain:
                self.begin(job, chain)
            elif row.type in ENDS:
                self._ended(job)
        self.wake()

    def begin(self, job: str, chain: str) -> None:
        """The job runs: its chain's progress is listened to from now on."""
        self.running[job] = chain
        self.progress.setdefault(chain, deque(maxlen=SHOWN))
        while len(self.progress) > CHAINS:
            del self.progress[next(iter(self.progress))]

    def _ended(self, job: str) -> None:
        """What the agent did is in the log now: who comes later need not see it happen."""
        chain = self.running.pop(job, None)
        if chain in self.progress and chain not in self.running.values():
            self.progress[chain].clear()

    def told(self, chain: str, entries: list[Entry]) -> None:
        """Its agents did this. Pieces of a text are not shown any more once it is there."""
        shown = self.progress[chain]
        for position, body in entries:
            if body.get("what") == "text":
                piece = ("writing", body.get("job"))
                kept = [
                    one for one in shown if (one[1].get("what"), one[1].get("job")) != piece
                ]
                shown.clear()
                shown.extend(kept)
            shown.append((position, body))
        self.wake()

    def wake(self) -> None:
        """Something is new."""
        for watcher in self.watchers:
            watcher.news.set()


@dataclass(eq=False, slots=True)
class Watcher:
    """One connection's view of a feed."""

    feed: Feed
    news: asyncio.Event = field(default_factory=asyncio.Event)
    shown: dict[str, str] = field(default_factory=dict[str, str])  # position by chain

    def progress(self) -> list[tuple[str, dict[str, Any]]]:
        """What agents did since this was asked last, with the chain of each."""
        told = list[tuple[str, dict[str, Any]]]()
        for chain, entries in self.feed.progress.items():
            seen = _position(self.shown.get(chain, "0-0"))
            for position, body in entries:
                if _position(position) > seen:
                    told.append((chain, body))
                    self.shown[chain] = position
        self.shown = {c: p for c, p in self.shown.items() if c in self.feed.progress}
        return told


def _position(text: str) -> tuple[int, int]:
    first, _, second = text.partition("-")
    return int(first), int(second or 0)


class Feeds:
    """All of them in this process."""

    def __init__(self, pool: Pool, doorbell: Doorbell) -> None:
        self._pool, self._doorbell = pool, doorbell
        self._feeds = dict[str, Feed]()

    @property
    def rings(self) -> bool:
        """Whether Redis answers."""
        return self._doorbell.rings

    def ring(self) -> None:
        """A job was asked for: the relay is to look. Nobody waits for that."""
        self._doorbell.ring_relay()

    @asynccontextmanager
    async def watch(self, project: str) -> AsyncGenerator[Watcher]:
        """Watch a project until the block ends."""
        feed = self._feeds.get(project)
        if feed is None:
            feed = self._feeds[project] = Feed(project)
        watcher = Watcher(feed)
        feed.watchers.add(watcher)
        try:
            if len(feed.watchers) == 1 or not feed.head:
                await self._open(feed)
            yield watcher
        finally:
            feed.watchers.discard(watcher)
            if not feed.watchers and self._feeds.get(project) is feed:
                del self._feeds[project]
            self._follow()

    async def _open(self, feed: Feed) -> None:
        async with feed.refilling, self._pool.connection() as conn:
            feed.head = max(
                feed.head, (await log.heads(conn, [feed.project])).get(feed.project, 0)
            )
            running = await log.running_chains(conn, feed.project)
            for job, chain in running:
                feed.begin(str(job), str(chain))
        self._follow()

    def _follow(self) -> None:
        """Tell the reader of Redis what to listen to."""
        chains = [chain for feed in self._feeds.values() for chain in feed.progress]
        self._doorbell.listen(list(self._feeds), chains)

    async def run(self) -> None:
        """Keep the feeds full, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._doorbell.run(self._rung, self._told))
            tasks.create_task(self._doorbell.pass_on())
            tasks.create_task(self._look())

    async def _rung(self, project: str) -> None:
        if feed := self._feeds.get(project):
            await self._refill(feed)

    def _told(self, chain: str, entries: list[Entry]) -> None:
        for feed in self._feeds.values():
            if chain in feed.progress:
                feed.told(chain, entries)

    async def _look(self) -> None:
        """What Redis did not ring for: one question for all projects."""
        while True:
            await asyncio.sleep(IDLE if self.rings else LOOK)
            try:
                asked = list(self._feeds)
                async with self._pool.connection() as conn:
                    heads = await log.heads(conn, asked) if asked else {}
                for project in asked:
                    feed, head = self._feeds.get(project), heads.get(project, 0)
                    if feed is not None and head > feed.head:
                        await self._refill(feed)
                    elif feed is not None and head < feed.head:
                        await self._look_again(feed)
            except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
                logger.warning("gateway.postgres_away", error=type(exc).__name__)

    async def _look_again(self, feed: Feed) -> None:
        """The log seems shorter than it was: it was deleted, is another under its id, or is that of a
        restored database. Or it grew here since it was looked at: that is ruled out by the lock."""
        async with feed.refilling, self._pool.connection() as conn:
            head = (await log.heads(conn, [feed.project])).get(feed.project, 0)
            if head < feed.head:
                feed.events.clear()
                feed.head = head
                feed.wake()

    async def _refill(self, feed: Feed) -> None:
        async with feed.refilling:
            try:
                while True:
                    async with self._pool.connection() as conn:
                        rows = await log.since(conn, feed.project, feed.head)
                    if not rows:
                        break
                    feed.add(rows)
            except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
                logger.warning("gateway.postgres_away", error=type(exc).__name__)
                return
        self._follow()
