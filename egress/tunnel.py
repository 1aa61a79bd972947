"""Hosts of BATON_EGRESS, as agents' tools reach them: CONNECT, or a whole URL with http://.

Each request is judged by itself, also the second of a connection.
"""

import asyncio
import contextlib
import re

import h11
import httpx

from config.hosts import Target
from egress.answers import Refused
from egress.judge import PATIENCE, Judge, NotAllowed
from egress.model import CONNECT, kept, no_cookies, pass_on
from egress.turns import Turn, Turns
from egress.wire import CHUNK, Wire

ALLOWED, REFUSED = "egress.allowed", "egress.refused"
HTTP = 80
WHOLE = re.compile(rb"http://([^/?#]*)([/?][^#]*)?", re.IGNORECASE)


def client() -> httpx.AsyncClient:
    """A client that goes to the address it is given, whatever the environment says of proxies."""
    timeout = httpx.Timeout(None, connect=CONNECT)
    return httpx.AsyncClient(trust_env=False, timeout=timeout, cookies=no_cookies())


class Tunnel:
    """What is done for a tool of an agent's."""

    def __init__(self, judge: Judge, http: httpx.AsyncClient, turns: Turns) -> None:
        self._judge, self._http, self._turns = judge, http, turns

    async def connect(self, wire: Wire, asked: h11.Request, turn: Turn) -> None:
        """A way through to one host, until either end closes it. Raises Refused."""
        reader, writer = await self._reach(asked.target.decode(), turn)
        try:
            await wire.send(h11.Response(status_code=200, headers=[]))
            early, _ = wire.http.trailing_data
            writer.write(early)
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(wire.reader, writer))
                both.create_task(_copy(reader, wire.writer))
        except* (OSError, EOFError):
            pass
        finally:
            writer.transport.abort()
            wire.break_off()

    async def whole(self, wire: Wire, asked: h11.Request, turn: Turn) -> None:
        """A plain HTTP request, sent on. Raises Refused."""
        found = WHOLE.fullmatch(asked.target)
        assert found
        authority, path = found[1].decode(), found[2] or b"/"
        path = b"/" + path if path.startswith(b"?") else path
        addresses, number = await self._judged(authority, turn, port=HTTP)
        body = await wire.body()
        request = httpx.Request(
            asked.method.decode(),
            httpx.URL(f"http://{Target(addresses[0], number)}").copy_with(raw_path=path),
            headers=[
                *kept(asked.headers, but={b"host", b"content-length", b"expect"}),
                (b"host", found[1]),
            ],
            content=body,
        )
        await wire.while_there(self._send(wire, request))

    async def _send(self, wire: Wire, request: httpx.Request) -> None:
        await pass_on(wire, await self._http.send(request, stream=True))

    async def _reach(
        self, authority: str, turn: Turn
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        addresses, port = await self._judged(authority, turn)
        for address in addresses:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(PATIENCE):
                    return await asyncio.open_connection(address, port)
        raise Refused(502, f"{authority} does not answer.", "api_error")

    async def _judged(
        self, authority: str, turn: Turn, *, port: int | None = None
    ) -> tuple[list[str], int]:
        """Where the host may be reached, and its port; it is told of, once a job."""
        try:
            target = self._judge.named(authority, port=port)
            addresses = await self._judge.addresses(target)
        except NotAllowed as exc:
            await self._turns.tell(turn, REFUSED, exc.host or _shown(authority), exc.why)
            raise Refused(403, str(exc)) from exc
        except OSError as exc:
            raise Refused(502, f"The name of {authority} is not known.", "api_error") from exc
        await self._turns.tell(turn, ALLOWED, str(target))
        return addresses, target.port


def _shown(text: str) -> str:
    """What was asked for, as it may stand in an event."""
    return "".join(c if c.isprintable() and c != "@" else "?" for c in text)[:100]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until the end of what is read, which is passed on as such."""
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
