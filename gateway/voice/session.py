"""A voice session: a client on one side, on the other one link to the provider after another.

    client ──► listen ──► outbox ──► link ──► provider
    client ◄──────────── read ◄───── link ◄── provider        each in the session's one task group

Whatever ends the session is an exception that leaves the group: its tasks are cancelled, and the link's
`async with` closes the link. The only unexpected end of a link is that its read loop falls off.
"""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass, field

from websockets.exceptions import ConnectionClosed

from config.log import log as logger
from config.settings import settings
from gateway import ledger
from gateway.voice import beta, events, replay, shape
from gateway.voice.desk import Desk
from gateway.voice.ends import Client, Ended, Gone, no_credits, raise_if_fatal, reason
from gateway.voice.events import Event, part, said
from gateway.voice.link import Link, Lost, Refused, opened
from gateway.voice.memory import Memory
from gateway.voice.outbox import KINDS, PAST, Outbox
from gateway.voice.shape import Misshapen
from gateway.voice.turns import COMMIT, Turns

FIRST, LONGEST, TRIES = 0.1, 30.0, 10  # seconds between two links; how many without an answer
QUIET = 0.2  # seconds without a word, before a link is changed for a new one
LAST_USAGE = 0.7  # seconds for what a response used whose client has gone


@dataclass(eq=False, slots=True)
class Session:
    """While its client is there."""

    desk: Desk
    client: Client
    account: str
    model: str
    name: str = ""  # empty: the provider's own, once it is known
    memory: Memory = field(default_factory=Memory)
    outbox: Outbox = field(default_factory=Outbox)
    link: Link | None = None
    links: int = 0  # that came up
    told: str = "connected"  # what the client knows of the provider
    turns: Turns = field(default_factory=Turns)

    async def serve(self) -> None:
        """All of it. Raises Ended, always."""
        try:
            await self._load()
            if not await self.desk.may_speak(self.account):
                raise no_credits()
        except ledger.ERRORS as exc:
            if not ledger.is_away(exc):
                raise
            raise Ended(1013, ledger.why(exc)) from None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._stay_linked(group))
                group.create_task(self._listen())
        except BaseExceptionGroup as several:
            raise reason(several) from None

    async def _load(self) -> None:
        """What is known of the session; nothing where it is new."""
        kept = await self.desk.load(self.account, self.name) if self.name else None
        if kept is not None and (wrong := self.memory.take(kept)):
            logger.warning("voice.bad_configuration", session=self.name, param=wrong.param)
            message = "The configuration that was kept of this session is none: send it again."
            await self._tell(
                events.warning("bad_configuration", message, param=wrong.param, about=None)
            )

    # What the client says.

    async def _listen(self) -> None:
        try:
            while True:
                await self._from_client(await self.client.receive())
        except Gone:
            await self._await_usage()
            raise Ended(1000, "") from None

    async def _from_client(self, text: str) -> None:
        if events.is_audio(text):
            self.turns.held = self.memory.by_hand
            await self._send_now(text)
            return
        event = events.read(text)
        if event is None:
            await self._tell(
                events.error("invalid_json", "An event is a JSON object with a type.")
            )
            return
        if event["type"] == "session.update" and (found := await self._mended(event)) != event:
            if found is None:
                return
            event, text = found, events.text_of(found)
        if event["type"] == "response.create" and not await self.desk.may_speak(self.account):
            raise no_credits()
        if self.links and event["type"].startswith(PAST):
            self.turns.say(event["type"])
            if not await self._send_now(text) and event["type"] == COMMIT:
                message = "The audio went with the provider's connection: say it again."
                about = said(event, "event_id") or None
                await self._tell(events.error("input_audio_lost", message, about=about))
            return
        told = event
        if event["type"] in KINDS and not said(event, "event_id"):
            event = event | {"event_id": events.new_id()}  # by which a refusal is known
            text = events.text_of(event)
        entry = self.outbox.put(event, text)
        if entry is None:
            about = said(told, "event_id") or None
            message = "Too much waits for the provider: send it again later."
            await self._tell(events.error("buffer_full", message, about=about))
        elif await self._send_now(text):
            self.outbox.sent(entry)

    async def _send_now(self, text: str) -> bool:
        """Send it if there is a link. What of it a link took with it is its outbox's matter."""
        if self.link is None:
            if not self.links and events.is_audio(text):
                self.outbox.put({"type": "audio"}, text)
            return False
        try:
            await self.link.send(text)
        except ConnectionClosed:
            return False
        return True

    async def _mended(self, event: Event) -> Event | None:
        """The update as the provider reads it; None, and the client is told why, where it is none."""
        about, session = said(event, "event_id") or None, event.get("session")
        moves = list[tuple[str, str]]()
        try:
            if events.is_object(session):
                session, moves = beta.mended(session)
            shape.checked(session)
        except Misshapen as exc:
            await self._tell(events.error(exc.code, exc.message, param=exc.param, about=about))
            return None
        for old, new in moves:
            message = f"'{old}' is the beta's: it was understood as '{new}'. Say that."
            await self._tell(events.warning("beta_parameter", message, param=old, about=about))
        return event | {"session": session} if moves else event

    async def _await_usage(self) -> None:
        """A response whose client has gone is stopped, and what it used is charged."""
        if not self.turns.responses:
            return
        await self._send_now(events.text_of({"type": "response.cancel"}))
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_USAGE):
                await self.turns.idle.wait()

    # The provider.

    async def _stay_linked(self, group: asyncio.TaskGroup) -> None:
        while True:
            pause = 0.0
            try:
                async with opened(self.model) as link:
                    try:
                        await self._begin(link)
                        await self._read(link, group)
                    finally:
                        self.link = None
            except (Lost, ConnectionClosed) as exc:
                logger.info("voice.link_lost", session=self.name, why=str(exc)[:200])
                pause = self._pause()
            except Refused as exc:
                raise Ended(4502, "The provider refuses this.", exc.event) from None
            for event in self.turns.cut_off():
                await self._tell(event)
            await self._state("reconnecting")
            await asyncio.sleep(pause)

    async def _begin(self, link: Link) -> None:
        """Bring the session about anew. The first link's answers are the client's to see; of a later
        one it knows all that they say."""
        told = self._ignore if self.links else self.client.send
        created = await replay.begin(link, told, self._between)
        self.name = self.name or said(part(created, "session"), "id") or events.new_id()
        await replay.configure(link, self.memory.config, self._between)
        await replay.recreate(link, self.memory.talk.replayed(), told, self._between)
        await self._flush(link)
        await self._state("connected")

    async def _flush(self, link: Link) -> None:
        """Send what waits, and what comes meanwhile; then the link is the client's."""
        done = set[object]()
        while waits := [entry for entry in self.outbox.entries if entry not in done]:
            done.add(waits[0])
            await link.send(waits[0].text)
            self.outbox.sent(waits[0])
        self.link, self.links = link, self.links + 1

    async def _read(self, link: Link, group: asyncio.TaskGroup) -> None:
        """Pass on what the provider says, until the link is retired. (Audio comes many times a second:
        no timer for each piece.)"""
        retiring = group.create_task(self._retire(link))
        try:
            while True:
                text = await link.receive()
                link.spoke = True
                await self._from_provider(text, group)
        except ConnectionClosed:
            if not link.retired:
                raise
        finally:
            retiring.cancel()

    async def _retire(self, link: Link) -> None:
        """Close a link that is old, when nobody would be interrupted."""
        await asyncio.sleep(settings().realtime_rotate.total_seconds())
        while self.turns.busy or link.spoke:
            link.spoke = False
            await asyncio.sleep(QUIET)
        await link.retire()

    async def _from_provider(self, text: str, group: asyncio.TaskGroup) -> None:
        if kind := events.delta(text):
            if kind == "response.output_audio.delta":
                self.memory.talk.hear(events.item_of(text), len(text))
            await self.client.send(text)
            return
        event = events.read(text)
        if event is None:
            await self.client.send(text)
            return
        self.outbox.confirm(event)
        self.turns.watch(event)
        if event["type"] == "error" and (found := events.without_ours(event)) is not event:
            text = events.text_of(found)
        await self.client.send(text)
        match event["type"]:
            case "session.updated":
                if self.memory.accept(event, self.name):
                    self._keep()
            case "response.created":
                group.create_task(self._check_credit())
            case "response.done":
                self._charge(event, group)
            case "error":
                raise_if_fatal(event)
            case _:
                pass
        if self.memory.talk.note(event):
            self._keep()

    async def _between(self, text: str) -> None:
        """What the provider says of its own accord while a link is being set up."""
        event = events.read(text)
        if event is not None and event["type"] == "error":
            await self._tell(events.without_ours(event))
            raise_if_fatal(event)
        elif not self.links:
            await self.client.send(text)

    def _keep(self) -> None:
        self.desk.writer.keep(
            (self.account, self.name), self.memory.config, self.memory.talk.replayed()
        )

    def _charge(self, event: Event, group: asyncio.TaskGroup) -> None:
        """Charge what a response used. It is written whatever becomes of this session."""
        if (tokens := events.tokens(event)) > 0:
            left = self.desk.charge((self.account, self.name), tokens)
            group.create_task(self._charged(left))
        if events.failure(event) in events.FATAL:
            raise Ended(4502, "The provider refuses this.")

    async def _charged(self, charge: "asyncio.Future[int | None]") -> None:
        left = await charge
        if left is not None and left <= 0:
            raise no_credits()

    async def _check_credit(self) -> None:
        """Another session may have used what was left."""
        if not await self.desk.may_speak(self.account):
            await self._send_now(events.text_of({"type": "response.cancel"}))
            raise no_credits()

    def _pause(self) -> float:
        """Seconds until another link is opened. Raises Ended after too many without an answer."""
        self.turns.tries += 1
        if self.turns.tries > TRIES:
            message = (
                f"The provider was tried {TRIES} times and gave no answer: try again later."
            )
            raise Ended(1013, "The provider is away.", events.error(
                "provider_unavailable", message, kind="server_error"))  # fmt: skip
        longest = min(LONGEST, FIRST * 2 ** (self.turns.tries - 1))
        return longest / 2 + random.random() * longest / 2

    async def _state(self, state: str) -> None:
        """Tell the client how the provider is, where it knows otherwise."""
        if self.told != state:
            self.told = state
            await self._tell({"type": "baton.provider", "state": state})

    async def _tell(self, event: Event) -> None:
        await self.client.send(events.text_of(event))

    async def _ignore(self, text: str) -> None:
        """The client knows it already."""
