"""The proxy: takes connections at its socket, and says what each request is and whose."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h11
import httpx

from config import hosts
from config.log import log
from config.settings import settings
from db.core import async_pool
from egress import answers, model, tunnel
from egress.answers import Refused
from egress.judge import Judge
from egress.listening import listening
from egress.model import Upstream
from egress.tunnel import WHOLE, Tunnel
from egress.turns import AWAY, Turns
from egress.wire import Gone, Wire

LAST = 0.05  # seconds
GRACE = 20.0  # seconds that requests under way have when it ends


@dataclass(slots=True)
class Proxy:
    """What serves each connection; `busy` requests are under way."""

    turns: Turns
    upstream: Upstream
    tunnel: Tunnel
    busy: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    lines: set["asyncio.Task[None]"] = field(default_factory=set["asyncio.Task[None]"])

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        line = asyncio.create_task(self.serve(reader, writer))
        self.lines.add(line)

        def ended(line: "asyncio.Task[None]") -> None:
            self.lines.discard(line)
            if line.cancelled():  # maybe before it had begun
                writer.transport.abort()

        line.add_done_callback(ended)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        wire = Wire(reader, writer)
        try:
            while (asked := await wire.request()) is not None:
                self.busy += 1
                try:
                    if await self._answer(wire, asked):
                        return
                except Refused as refused:
                    await wire.answer(*answers.of(refused))
                finally:
                    self.busy -= 1
                    self.idle.set()
        except (h11.ProtocolError, TimeoutError, OSError, Gone):
            wire.break_off()
        except (httpx.HTTPError, *AWAY) as exc:
            # The client is to see what it would see without us: a connection that breaks.
            log.warning("egress.broken", error=type(exc).__name__)
            wire.break_off()
        finally:
            writer.close()

    async def end(self, within: float) -> None:
        """Close all connections, once no request is under way or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.busy:
                    self.idle.clear()
                    await self.idle.wait()
        for line in self.lines:
            line.cancel()
        await asyncio.gather(*self.lines, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes them

    async def _answer(self, wire: Wire, asked: h11.Request) -> bool:
        """Answer one request; whether that was the connection's last."""
        token = _token(asked)
        if asked.method == b"CONNECT":
            await wire.body()  # it has none, and this is its end
            await self.tunnel.connect(wire, asked, await self.turns.of(token))
            return True
        if WHOLE.fullmatch(asked.target):
            await self.tunnel.whole(wire, asked, await self.turns.of(token))
        else:
            await self.upstream.serve(wire, asked, await self.turns.of(token))
        return False


def _token(asked: h11.Request) -> str:
    """The token of a request: of a tool's in the proxy's header, of the CLI's where the key is.
    Raises Refused."""
    given = {name.lower(): value.decode("latin-1") for name, value in asked.headers}
    if asked.method == b"CONNECT" or WHOLE.fullmatch(asked.target):
        kind, _, coded = given.get(b"proxy-authorization", "").partition(" ")
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            _, _, token = base64.b64decode(coded, validate=True).decode().partition(":")
            if kind.lower() == "basic" and token:
                return token
        raise Refused(407, "The proxy wants the turn's token: use HTTPS_PROXY as it is set.")
    bearer = given.get(b"authorization", "").removeprefix("Bearer ")
    if token := given.get(b"x-api-key") or bearer:
        return token
    raise Refused(401, "The request has no key.", "authentication_error")


@asynccontextmanager
async def running() -> AsyncGenerator[Proxy]:
    """The proxy at its socket, with what it needs. When the block ends, requests under way have
    some time. Raises OSError."""
    pool = async_pool.pool()
    await pool.open(wait=False)
    turns, judge = Turns(pool), Judge(frozenset(hosts.read_all(settings().egress)))
    async with model.client() as http, tunnel.client() as plain:
        proxy = Proxy(turns, Upstream(settings(), http, turns), Tunnel(judge, plain, turns))
        try:
            with listening() as ours:
                server = await asyncio.start_unix_server(proxy.accept, sock=ours)
                yield proxy
            # Who has just connected is taken in: asyncio forgets one that it accepts as it closes.
            await asyncio.sleep(LAST)
            server.close()
            await proxy.end(min(GRACE, settings().drain_grace.total_seconds()))
        finally:
            await pool.close()
