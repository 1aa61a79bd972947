"""`baton bench voice`: what the relay adds to a piece of audio, and how many calls it carries.

    direct   client ──────────────► provider
    pumps    client ──► two pumps ──► provider        the least that a relay can be, on `websockets`
    relay    client ──► gateway ────► provider

Each call sends 24 kHz PCM in pieces of 40 ms, and the provider, which looks at none of it, gives each
back at once: so a call is 25 pieces a second both ways. Clients, provider and relay share the machine, so
on a busy one the round trips are the machine's. The processor time of a piece is much less so: what a relay
could carry with a core of its own follows from that. It still depends on how many pieces wait together, so
the ways take turns, several rounds, and are compared by the sum of their rounds.
"""

import asyncio
import base64
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from websockets.asyncio.client import ClientConnection, connect

from config.settings import settings
from db.core.migrate import migrate
from dev.bench.asking import spread
from dev.bench.live import gateway
from dev.stack.services import services
from dev.stack.up import EXPECTED

PIECE = 0.04  # seconds
AUDIO = base64.b64encode(bytes(1920)).decode()
BEFORE, AFTER = '{"type":"input_audio_buffer.append","event_id":"', f'","audio":"{AUDIO}"}}'
STAMP = len('{"type":"response.output_audio.delta","event_id":"')
SECONDS, ROUNDS = 2.0, 5
DRAIN = 20.0  # seconds for what is still under way
CALLS = (10, 50, 200)
LINKS = 30
PUMPS = "two pumps"


@dataclass(frozen=True, slots=True)
class Way:
    """One of the three: the address, and whose processor time is counted."""

    name: str
    url: str
    key: str
    pid: int


@dataclass(slots=True)
class Figures:
    """Of one way with so many calls, in seconds: round trips, and processor time."""

    took: list[float] = field(default_factory=list[float])
    sent: int = 0
    used: float = 0.0

    @property
    def each(self) -> float:
        """The processor time of a piece."""
        return self.used / max(len(self.took), 1)

    def add(self, more: "Figures") -> None:
        """Those of another round."""
        self.took += more.took
        self.sent += more.sent
        self.used += more.used


def main(root: Path) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    try:
        with ExitStack() as held:
            place = held.enter_context(
                tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-")
            )
            running = held.enter_context(services(Path(place), database_url="", redis_url=""))
            migrate(running.database_url)
            os.environ |= {"DATABASE_URL": running.database_url, "REDIS_URL": running.redis_url}
            settings.cache_clear()
            provider, url = held.enter_context(_ends("provider"))
            pumps, bare = held.enter_context(_ends("pumps", url))
            door = held.enter_context(gateway(
                running.database_url, "voice", BATON_REALTIME_URL=f"{url}/v1/realtime"))  # fmt: skip
            ways = [
                Way("direct", url, "", provider.pid),
                Way(PUMPS, bare, "", pumps.pid),
                Way("the relay", door.url.replace("http", "ws"), door.key, door.pid),
            ]
            console.print(asyncio.run(_table(ways)))
            console.print(asyncio.run(_reconnects(ways[-1], provider)))
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    return 0


@contextmanager
def _ends(*words: str) -> Generator[tuple["subprocess.Popen[str]", str]]:
    """A process of dev/bench/voice_ends.py, and its address."""
    command = [sys.executable, "-m", "dev.bench.voice_ends", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process, f"ws://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


async def _table(ways: list[Way]) -> Table:
    load = os.getloadavg()[0]
    table = Table(
        title=f"Round trip of a piece of {PIECE * 1000:.0f} ms; load at the start {load:.1f}"
    )
    for column in (
        "calls",
        "way",
        "round trip",
        "pieces that came back",
        "of a core",
        "calls a core",
        "of the pumps' work",
    ):
        table.add_column(column)
    for calls in CALLS:
        got = await _rounds(ways, calls)
        least = got[PUMPS].each
        for name, one in got.items():
            table.add_row(str(calls), name, spread(one.took), f"{len(one.took) / one.sent:.1%}",
                          f"{one.each * 1e6:.0f} µs", f"{PIECE / one.each:.0f}", f"{least / one.each:.2f}")  # fmt: skip
    return table


async def _rounds(ways: list[Way], calls: int) -> dict[str, Figures]:
    """Each way in turn, forwards and backwards, so that none has the machine's better moments."""
    got = {way.name: Figures() for way in ways}
    for number in range(ROUNDS):
        for way in ways if number % 2 else reversed(ways):
            got[way.name].add(await _measured(way, calls))
    return got


async def _measured(way: Way, calls: int) -> Figures:
    """So many calls at once, for some seconds."""
    took, sent = list[float](), [0]
    opened = [await _open(way) for _ in range(calls)]
    hearing = [asyncio.create_task(_hear(ws, took)) for ws in opened]
    before, end = _processor(way.pid), time.perf_counter() + SECONDS
    await asyncio.gather(*(_speak(ws, end, sent) for ws in opened))
    while len(took) < sent[0] and time.perf_counter() < end + DRAIN:  # noqa: ASYNC110 - a look is enough
        await asyncio.sleep(PIECE)
    used = _processor(way.pid) - before
    for task in hearing:
        task.cancel()
    await asyncio.gather(*(ws.close() for ws in opened))
    return Figures(took, sent[0], used)


def _processor(pid: int) -> float:
    """Of all its threads, to the nanosecond: psutil's figure has steps of 10 ms."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def _open(way: Way, session: str = "") -> ClientConnection:
    headers = {"Authorization": f"Bearer {way.key}"} if way.key else {}
    url = f"{way.url}/v1/realtime?model=m" + (f"&session={session}" if session else "")
    ws = await connect(url, additional_headers=headers, proxy=None, compression=None)
    await ws.recv()  # session.created
    return ws


async def _speak(ws: ClientConnection, end: float, sent: list[int]) -> None:
    """A piece each 40 ms, by the clock: whoever is late does not speak more slowly."""
    due = time.perf_counter() + random.random() * PIECE
    while due < end:
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        await ws.send(f"{BEFORE}{time.perf_counter():.6f}{AFTER}")
        sent[0] += 1
        due += PIECE


async def _hear(ws: ClientConnection, took: list[float]) -> None:
    async for text in ws:
        now = time.perf_counter()
        assert isinstance(text, str)
        if text.startswith('{"type":"response.output_audio.delta"'):
            took.append(now - float(text[STAMP : text.index('"', STAMP)]))


async def _reconnects(way: Way, provider: "subprocess.Popen[str]") -> str:
    """The provider closes the link; how long until it has confirmed what is replayed over the next one."""
    assert provider.stdout
    took = list[float]()
    for n in range(LINKS):
        ws = await _open(way, f"again{n}")
        event = {"type": "realtime", "instructions": "close"}
        update = {"type": "session.update", "event_id": "mine", "session": event}
        await ws.send(json.dumps(update))
        while '"connected"' not in await ws.recv(decode=True):
            pass
        await ws.close()
        told = [(await asyncio.to_thread(provider.stdout.readline)).split() for _ in range(3)]
        assert [what for what, _ in told] == ["confirmed", "closed", "confirmed"]
        took.append(float(told[2][1]) - float(told[1][1]))
    return f"From a close by the provider to the first replayed confirmation: {spread(took)} ({LINKS} times)"
