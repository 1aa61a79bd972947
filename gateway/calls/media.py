"""The telephone's side of a call: Media Streams, and the voice session that speaks to it.

    listen   frames ──► the phone ──► the voice session        follow   the call's events: apply the
    notes    what the page is to know ──► Postgres                      configuration, end with the call

All are tasks of one group: whatever ends the call ends them all, and with them the provider's link.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from starlette.websockets import WebSocketDisconnect

from config.log import log as logger
from config.settings import settings
from db.live import calls
from gateway.calls import config, twilio
from gateway.calls.phone import Phone
from gateway.calls.sides import Over, Side
from gateway.ledger import ERRORS, is_away, told
from gateway.voice.desk import Desk
from gateway.voice.ends import Ended, leaves
from gateway.voice.events import Event, part, said
from gateway.voice.session import Session

START = 30.0  # seconds until a stream must have said that it starts
TOUCH = 15.0  # seconds between two signs of life
AGAIN = 1.0  # seconds until Postgres is asked again
LEAVE = 1.2  # seconds for the voice session to leave
REASONS = {4402: "no_credits", 4502: "provider_refused"}  # by how the voice session ended


class HungUp(Exception):
    """The telephone's side is over."""


@dataclass(eq=False, slots=True)
class Media:
    """One stream."""

    side: Side
    desk: Desk
    voice: "asyncio.Task[None] | None" = None  # its voice session

    async def serve(self) -> None:
        """All of it. Never raises for what a client does."""
        await self.side.ws.accept()
        try:
            await self._serve()
        except (Over, WebSocketDisconnect, *ERRORS) as exc:
            await self.side.leave([exc])
        finally:
            logger.info("call.cleaned", call=self.side.call, side="telephone")

    async def _serve(self) -> None:
        if not twilio.signed(self.side.ws, self.side.ws.url.path):
            raise Over(4401, "This is not signed with the token of BATON_TWILIO_TOKEN.")
        found = await self.side.look()
        if found.status == "ended":
            raise Over(4410, "The call has ended.")
        await self.side.move("waiting", "created")
        stream = await self._start()
        if not await self.side.move("associated", "created", "waiting", stream=stream):
            raise Over(4409, "The call has a telephone already, or has ended.")
        logger.info("call.telephone", call=self.side.call)
        phone = Phone(stream, self.side.send)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(phone, found.account_id, group))
                group.create_task(self._listen(phone))
                group.create_task(self._notes(phone))
                group.create_task(self._live(phone))
        except BaseExceptionGroup as several:
            await self._over(leaves(several))

    async def _start(self) -> str:
        """The stream's id. Raises Over where none comes."""
        try:
            async with asyncio.timeout(START):
                while said(frame := await self.side.receive(), "event") != "start":
                    pass
        except TimeoutError:
            raise Over(4400, f"No start came within {START:.0f} s.") from None
        sid = said(part(frame, "start"), "streamSid") or said(frame, "streamSid")
        if not sid.isprintable() or not 0 < len(sid) <= 200:
            raise Over(4400, "A start needs a streamSid.")
        return sid

    async def _over(self, why: list[BaseException]) -> None:
        """Whatever ended the telephone's side ends the call."""
        ended = next((one for one in why if isinstance(one, Ended)), None)
        reason = REASONS.get(ended.code, "provider_away") if ended else "failed"
        with suppress(*ERRORS):
            if ended and ended.event:
                inner = part(ended.event, "error")
                told = {"code": said(inner, "code"), "text": said(inner, "message")}
                await self.side.note("call.log", {"level": "error", **told})
            await self.side.end(reason)
        if any(isinstance(one, HungUp | Ended) for one in why):
            await self.side.close(1000, "The call has ended.")
        else:
            await self.side.leave(why)

    async def _hang_up(self, phone: Phone, reason: str) -> NoReturn:
        """End the call, tell of it, and only then clean up: what the voice used is charged first."""
        with suppress(*ERRORS):
            await self.side.end(reason)
        phone.hang_up()
        if self.voice is not None:
            await asyncio.wait({self.voice}, timeout=LEAVE)
        raise HungUp

    async def _follow(self, phone: Phone, account: str, group: asyncio.TaskGroup) -> None:
        """Apply the configuration, whichever side was first, and leave with the call."""
        with self.side.bell.watch(self.side.call) as news:
            while True:
                news.clear()
                try:
                    wanted = await self._wanted()
                except ERRORS as exc:
                    if not is_away(exc):
                        raise
                    # The call goes on, and hears of it later.
                    await asyncio.sleep(AGAIN)
                    continue
                if wanted is None:
                    await self._hang_up(phone, "ended")
                if wanted:
                    logger.info("call.applied", call=self.side.call, anew=self.voice is None)
                    phone.configure(config.update(wanted))
                    self.voice = self.voice or group.create_task(
                        self._voice(phone, account).serve()
                    )
                else:
                    await news.wait()

    async def _wanted(self) -> Event | None:
        """The configuration to apply, if there is one that nobody has applied; None: the call has
        ended."""
        async with self.side.bell.pool.connection() as conn:
            wanted = await calls.apply(conn, self.side.call)
        if wanted is not None:
            self.side.bell.ring(self.side.call)
            return wanted
        return None if (await self.side.look()).status == "ended" else {}

    def _voice(self, phone: Phone, account: str) -> Session:
        model = settings().realtime_model
        return Session(self.desk, phone, account, model, self.side.call)

    async def _listen(self, phone: Phone) -> None:
        try:
            while True:
                frame = await self.side.receive()
                match frame.get("event"):
                    case "media":
                        phone.hear(part(frame, "media"))
                    case "mark":
                        phone.played(said(part(frame, "mark"), "name"))
                    case "stop":
                        await self._hang_up(phone, "hung_up")
                    case _:
                        pass
        except WebSocketDisconnect:
            await self._hang_up(phone, "media_closed")
        except Over:
            await self._hang_up(phone, "bad_frame")

    async def _notes(self, phone: Phone) -> None:
        while True:
            kind, body = await phone.notes.get()
            await self._note(kind, body)

    async def _note(self, kind: str, body: dict[str, Any]) -> None:
        try:
            await self.side.note(kind, body)
        except ERRORS as exc:
            logger.warning("call.not_noted", call=self.side.call, type=kind, error=told(exc))

    async def _live(self, phone: Phone) -> None:
        """The call is active as soon as its voice is configured; then it shows signs of life."""
        await phone.ready.wait()
        while True:
            try:
                if not await self.side.move("active", "associated"):
                    async with self.side.bell.pool.connection() as conn:
                        await calls.touch(conn, self.side.call)
                await asyncio.sleep(TOUCH)
            except ERRORS as exc:
                if not is_away(exc):
                    raise
                await asyncio.sleep(AGAIN)
