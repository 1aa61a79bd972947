"""One WebSocket, from its hello to its end."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, NoReturn
from uuid import UUID, uuid4

import psycopg
from psycopg import AsyncConnection
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from config.log import log as logger
from db.live import connections, log
from gateway import ledger
from gateway.access import origins
from gateway.access.limits import CONNECTIONS, MESSAGES, TOO_LONG, Window, is_too_long
from gateway.feed.feeds import Watcher, frame
from gateway.live.messages import Desk
from gateway.state import NAME, State
from worker.live.tickets import Guest, cookie_name
from worker.text.storable import plain, written

HELLO = 10.0  # seconds in which it must be said
SLOW = 5.0  # seconds that a frame may take to leave
BEAT = 30.0  # seconds between two heartbeats
BEHIND = 5000  # events; further back the state is sent instead
NEWEST = 200  # messages in a snapshot
VERSION = 1


class Closed(Exception):
    """The connection is to be closed: with a code, and one sentence."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(slots=True)
class Hello:
    """What a client says first."""

    project: str
    ticket: str | None
    tab: str | None
    epoch: str | None
    last: int


@dataclass(slots=True)
class Socket:
    """A connection while it is open. `last` is the number of the event that was sent last."""

    ws: WebSocket
    here: State
    conn: UUID = field(default_factory=uuid4)
    last: int = 0
    live: bool = False
    begun: bool = True  # the project was there, and the guest's, when it was looked at
    sending: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def serve(self) -> None:
        """All of it. Never raises for what a client does."""
        await self.ws.accept()
        try:
            await self._talk()
        except Closed as exc:
            await self._close(exc.code, exc.reason)
        except WebSocketDisconnect:
            pass
        except psycopg.Error as exc:
            await self._fail(exc)

    async def _fail(self, exc: psycopg.Error) -> None:
        if ledger.is_away(exc):
            logger.warning(f"gateway.{ledger.code(exc)}", error=type(exc).__name__)
            await self._close(1013, ledger.why(exc))
            return
        logger.error("live.failed", error=type(exc).__name__, rule=ledger.told(exc))
        await self._close(1011, ledger.FAILED)

    async def _talk(self) -> None:
        if not origins.allowed(self.ws):
            raise Closed(4401, "This page may not connect: name it in BATON_WEB_ORIGINS.")
        if wait := await self.here.limits.hello(self.ws.client.host if self.ws.client else ""):
            raise Closed(
                4429, f"Too many connections from this address. retry_after={wait:.0f}"
            )
        hello = await self._hello()
        guest = await self._guest(hello)
        async with self.here.pool.connection() as conn:
            found = await log.project(conn, guest.project)
            if found is not None and found.user_id != guest.user:
                raise Closed(4404, "There is no such project.")
            if found is None and hello.epoch:  # it had begun when the client heard of it last
                await self._check_deleted(conn, guest)
            self.begun = found is not None
            begun = await connections.begin(
                conn,
                self.conn,
                project=guest.project,
                user=guest.user,
                tab=hello.tab,
                gateway=NAME,
                most=CONNECTIONS,
            )
        if not begun:
            raise Closed(4429, f"{CONNECTIONS} connections are open already. retry_after=30")
        try:
            async with self.here.feeds.watch(guest.project) as watcher:
                await self._welcome(hello, guest, found)
                await self._both_ways(watcher, guest)
        finally:
            with contextlib.suppress(psycopg.Error):
                async with self.here.pool.connection() as conn:
                    await connections.end(conn, self.conn)

    async def _hello(self) -> Hello:
        try:
            async with asyncio.timeout(HELLO):
                told = await self._receive()
        except TimeoutError:
            raise Closed(4400, f"No hello came within {HELLO:.0f} s.") from None
        return _hello_of(told)

    async def _receive(self) -> Any:
        message = await self.ws.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if (text := message.get("text")) is None:
            raise Closed(4400, "Frames are JSON text, not bytes.")
        if is_too_long(text):
            raise Closed(1009, TOO_LONG)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise Closed(4400, "A frame is not JSON.") from None

    async def _guest(self, hello: Hello) -> Guest:
        """Whom it speaks for, by its ticket or its cookie. Raises Closed."""
        guest = None
        if hello.ticket is not None:
            guest = self.here.tickets.of_ticket(hello.ticket)
        if guest is None:
            guest = self.here.tickets.of_cookie(
                self.ws.cookies.get(cookie_name(hello.project), "")
            )
        if guest is None:
            raise Closed(
                4401, "Neither a ticket nor a cookie that counts: ask for a new ticket."
            )
        async with self.here.pool.connection() as conn:
            if await connections.signed_out(conn, guest.id):
                raise Closed(4401, "This was signed out: ask for a new ticket.")
        if guest.project != hello.project:
            raise Closed(4404, "There is no such project.")
        return guest

    async def _welcome(self, hello: Hello, guest: Guest, found: log.Project | None) -> None:
        head, epoch = (found.head, found.epoch) if found else (0, "")
        told: dict[str, Any] = {"t": "welcome", "conn": str(self.conn), "epoch": epoch}
        other = bool(hello.epoch) and hello.epoch != epoch  # "": the project had not begun
        if other or hello.last > head or head - hello.last > BEHIND:
            async with self.here.pool.connection() as conn:
                at, state = await log.snapshot(conn, guest.project, NEWEST)
            self.last = at
            told |= {"head": max(head, at), "mode": "snapshot", "at": at, "state": state}
        else:
            self.last = hello.last
            told |= {"head": head, "mode": "replay"}
        await self._send(told)

    async def _both_ways(self, watcher: Watcher, guest: Guest) -> None:
        desk = Desk(self.here, guest, Window(*MESSAGES))
        tasks = [
            asyncio.create_task(work)
            for work in (
                self._pump(watcher, guest),
                self._listen(desk),
                self._beat(watcher, guest),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _pump(self, watcher: Watcher, guest: Guest) -> None:
        """Send what comes, each number once and in order."""
        while True:
            watcher.news.clear()
            if not self.begun and watcher.feed.head:
                await self._check_owner(guest)
            while self.last < watcher.feed.head or not self.live:
                await self._catch_up(watcher, guest)
            for chain, body in watcher.progress():
                await self._send({"t": "progress", "chain": chain, **body})
            await watcher.news.wait()
            if watcher.feed.head < self.last:
                await self._lose_log(guest)

    async def _check_owner(self, guest: Guest) -> None:
        """The project has begun meanwhile: perhaps it is another user's. Raises Closed."""
        async with self.here.pool.connection() as conn:
            found = await log.project(conn, guest.project)
        if found is not None and found.user_id != guest.user:
            raise Closed(4404, "There is no such project.")
        self.begun = found is not None

    async def _catch_up(self, watcher: Watcher, guest: Guest) -> None:
        found = watcher.feed.after(self.last)
        if found is None:
            async with self.here.pool.connection() as conn:
                rows = await log.since(conn, watcher.feed.project, self.last)
            found = [(row.seq, frame(row)) for row in rows]
            if not found:  # events went with their project
                await self._lose_log(guest)
        for seq, text in found:
            if seq != self.last + 1:
                raise Closed(1012, "An event is missing here: connect again.")
            await self._send(text)
            self.last = seq
        if not self.live and self.last >= watcher.feed.head:
            self.live = True
            await self._send({"t": "live", "head": self.last})

    async def _lose_log(self, guest: Guest) -> NoReturn:
        """What was told before is no part of the log any more. Raises Closed."""
        async with self.here.pool.connection() as conn:
            if await log.project(conn, guest.project) is None:
                await self._check_deleted(conn, guest)
        raise Closed(1012, "The log is another one now: connect again.")

    async def _check_deleted(self, conn: AsyncConnection, guest: Guest) -> None:
        """Of a project that is not there: raises Closed if it was deleted."""
        if await log.was_deleted(conn, guest.project, guest.user):
            raise Closed(4410, "This project was deleted.")

    async def _listen(self, desk: Desk) -> None:
        while True:
            told = await self._receive()
            if not isinstance(told, dict):
                raise Closed(4400, "A frame is a JSON object.")
            await self._send(await desk.take(told))  # pyright: ignore[reportUnknownArgumentType]

    async def _beat(self, watcher: Watcher, guest: Guest) -> None:
        """Tell that the line is alive. Whoever signed out elsewhere is out here too."""
        while True:
            await asyncio.sleep(BEAT)
            await self._send({"t": "hb", "head": watcher.feed.head})
            with contextlib.suppress(psycopg.Error):
                async with self.here.pool.connection() as conn:
                    await connections.touch(conn, [self.conn])
                    if await connections.signed_out(conn, guest.id):
                        raise Closed(4401, "This was signed out: ask for a new ticket.")

    async def _send(self, told: dict[str, Any] | str) -> None:
        """Raises Closed for a reader that is too slow: it connects again, and reads on."""
        text = told if isinstance(told, str) else written(told)
        try:
            async with asyncio.timeout(SLOW), self.sending:
                await self.ws.send_text(text)
        except TimeoutError:
            raise Closed(1013, "Too slow: connect again and read on.") from None
        except RuntimeError as exc:  # it was closed meanwhile
            raise WebSocketDisconnect(1006) from exc

    async def _close(self, code: int, reason: str) -> None:
        if self.ws.application_state is WebSocketState.DISCONNECTED:
            return
        with contextlib.suppress(RuntimeError, TimeoutError, WebSocketDisconnect, OSError):
            async with asyncio.timeout(30):
                await self.ws.close(code, reason)


def _hello_of(told: Any) -> Hello:
    """Raises Closed for what is no hello."""
    if not isinstance(told, dict) or told.get("t") != "hello":  # pyright: ignore[reportUnknownMemberType]
        raise Closed(4400, "The first frame must be a hello.")
    said: dict[str, Any] = told  # pyright: ignore[reportUnknownVariableType]
    if said.get("v") != VERSION:
        raise Closed(4400, f"This gateway speaks version {VERSION}: say v={VERSION}.")
    last = said.get("last", 0)
    if last is None:
        last = 0
    texts = {name: said.get(name) for name in ("project", "ticket", "tab", "epoch")}
    if not isinstance(texts["project"], str) or any(
        value is not None
        and (not isinstance(value, str) or len(value) > 4000 or plain(value) != value)
        for value in texts.values()
    ):
        raise Closed(4400, "project, ticket, tab and epoch are text.")
    if isinstance(last, bool) or not isinstance(last, int) or not 0 <= last < 2**63:
        raise Closed(4400, "last is the number of the event that was seen last, or 0.")
    return Hello(texts["project"], texts["ticket"], texts["tab"], texts["epoch"], last)
