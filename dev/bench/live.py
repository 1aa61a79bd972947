"""`baton bench live`: what a gateway carries, on the machine that also runs its clients.

    idle      connections that only hear heartbeats: how many, and the memory of each
    fan-out   ten who watch each project: from before a commit until the frame is here
    replay    a client that comes back with nothing: until it is live again
    enqueue   HTTP, and beside it the SQL function, in the same run (asking.py)

One gateway, one Postgres, one Redis. A user may have ten connections and an address may say hello
twenty times a minute, so the clients are many users at many loopback addresses.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import aiohttp
import httpx
import psutil
import psycopg
from rich.console import Console
from rich.table import Table

from config.settings import settings
from db.core import events
from db.core.events import Event
from db.core.migrate import migrate
from db.live import keys
from dev.bench import asking
from dev.stack.processes import free_port
from dev.stack.services import services
from dev.stack.up import EXPECTED
from worker.broker.publish import copy
from worker.client import Build, enqueue

IDLE = 5_000
WATCHING = 500
COMMITS = 10  # of each project
PAUSE = 0.02
REPLAYED = 5_000
OF_A_USER = 10  # connections at a time; of an address twice as many hellos a minute
TIMES = 5


@dataclass(frozen=True, slots=True)
class Door:
    """The gateway that is measured."""

    url: str
    key: str
    pid: int

    @property
    def memory(self) -> int:
        """Bytes that are its own."""
        return int(psutil.Process(self.pid).memory_full_info().uss)


def main(root: Path) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as place,
            services(Path(place), database_url="", redis_url="") as running,
        ):
            migrate(running.database_url)
            os.environ |= {"DATABASE_URL": running.database_url, "REDIS_URL": running.redis_url}
            settings.cache_clear()
            with gateway(running.database_url) as door:
                table = Table(title="One gateway; its clients share the machine with it")
                for column in ("", "measured", "n"):
                    table.add_column(column)
                _ask(table, running.database_url, door)
                asyncio.run(_watch(table, running.database_url, door))
                console.print(table)
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    return 0


@contextmanager
def gateway(database_url: str, scope: str = "jobs", **more: str) -> Generator[Door]:
    """One of them, and a key with the scope; `more` goes into its environment."""
    port = free_port()
    env = {
        **os.environ,
        "BATON_WEB_PORT": str(port),
        "BATON_SECRET": uuid4().hex + uuid4().hex,
        "BATON_LOG_LEVEL": "warning",
        **more,
    }
    with psycopg.connect(database_url, autocommit=True) as conn:
        key, _ = keys.create(conn, "bench", "bench", [scope])
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "gateway"], env=env) as process:
        try:
            while not _serves(url) and process.poll() is None:
                time.sleep(0.05)
            yield Door(url, key, process.pid)
        finally:
            process.terminate()


def _serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _ask(table: Table, database_url: str, door: Door) -> None:
    port = int(door.url.rpartition(":")[2])
    for asked, what, how in (
        (
            asking.over_http(database_url, port, door.key, door.pid),
            "over HTTP",
            f"{asking.AT_ONCE} at once",
        ),
        (asking.in_sql(database_url), "by the SQL function", "one connection"),
    ):
        for row in asked.rows(f"enqueue {what}", how):
            table.add_row(*row)


async def _watch(table: Table, database_url: str, door: Door) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("delete from jobs")
        _fill(conn)
        table.add_row(f"replay of {REPLAYED} events, until live", *await _replayed(door))
        table.add_row("fan-out, commit to frame", *await _fanned_out(conn, door))
        table.add_row("idle connections", *await _idle(door))


def _fill(conn: psycopg.Connection) -> None:
    many = [("long", 1), ("watched", WATCHING // OF_A_USER), ("idle", IDLE // OF_A_USER)]
    with conn.transaction():
        for name, count in many:
            for n in range(count):
                enqueue(conn, Build(project=f"{name}{n}", user=f"{name}{n}", prompt="go"))
    told = [Event("chat.said", None, {"role": "user", "text": "x" * 200})] * REPLAYED
    events.append(conn, "long0", told)


async def _replayed(door: Door) -> tuple[str, str]:
    took = list[float]()
    async with _client(door) as client:
        for n in range(TIMES):
            ticket = await client.ticket("long0")
            at = time.perf_counter()
            ws = await client.open("long0", ticket, f"127.0.8.{n + 1}")
            took.append(time.perf_counter() - at)
            await ws.close()
    return f"{statistics.median(took):.2f} s ({min(took):.2f} to {max(took):.2f})", str(TIMES)


async def _fanned_out(conn: psycopg.Connection, door: Door) -> tuple[str, str]:
    """Each event carries when its transaction began; each watcher says when it has it."""
    took = list[float]()
    async with _client(door) as client:
        watching = await client.many("watched", WATCHING)
        heard = asyncio.gather(*(_hear(ws, took) for ws in watching))
        for n in range(COMMITS * WATCHING // OF_A_USER):
            await asyncio.to_thread(_commit, conn, f"watched{n % (WATCHING // OF_A_USER)}")
            await asyncio.sleep(PAUSE)
        await heard
    return asking.spread(
        took
    ), f"{WATCHING} watching, {COMMITS} commits each, {1 / PAUSE:.0f} a second"


def _commit(conn: psycopg.Connection, project: str) -> None:
    body = {"began": time.time()}
    copy(project, events.append(conn, project, [Event("bench.told", None, body)]))


async def _hear(ws: aiohttp.ClientWebSocketResponse, took: list[float]) -> None:
    for _ in range(COMMITS):
        while (frame := await ws.receive_json()).get("type") != "bench.told":
            pass
        took.append(time.time() - frame["body"]["began"])


async def _idle(door: Door) -> tuple[str, str]:
    async with _client(door) as client:
        before = door.memory
        opened = await client.many("idle", IDLE)
        more = (door.memory - before) / len(opened)
        alive = sum(not ws.closed for ws in opened)
    return f"{alive} open, {more / 1024:.0f} KiB each", str(IDLE)


@dataclass
class Client:
    """Browsers of many users, from many addresses."""

    door: Door
    held: AsyncExitStack
    http: aiohttp.ClientSession

    async def ticket(self, project: str) -> str:
        """For the project's user, whose name is the same."""
        headers = {"Authorization": f"Bearer {self.door.key}"}
        asked = {"project": project, "user": project}
        async with self.http.post(
            f"{self.door.url}/v1/tickets", json=asked, headers=headers
        ) as answer:
            return str((await answer.json())["ticket"])

    async def many(self, name: str, count: int) -> list[aiohttp.ClientWebSocketResponse]:
        """So many connections, all of them live, ten to each of the projects of that name."""
        opened = list[aiohttp.ClientWebSocketResponse]()
        for n in range(count // OF_A_USER):
            ticket = await self.ticket(f"{name}{n}")
            address = f"127.{len(name)}.{n // 250}.{n % 250 + 1}"
            opened += await asyncio.gather(
                *(self.open(f"{name}{n}", ticket, address) for _ in range(OF_A_USER))
            )
        return opened

    async def open(
        self, project: str, ticket: str, address: str
    ) -> aiohttp.ClientWebSocketResponse:
        """A connection from that address, which has said hello and is live."""
        connector = aiohttp.TCPConnector(local_addr=(address, 0))
        session = await self.held.enter_async_context(
            aiohttp.ClientSession(connector=connector)
        )
        ws = await session.ws_connect(f"{self.door.url}/v1/live", autoping=True)
        hello = {"t": "hello", "v": 1, "project": project, "ticket": ticket, "last": 0}
        await ws.send_json(hello | {"tab": str(uuid4()), "epoch": None})
        while (await ws.receive_json())["t"] != "live":
            pass
        return ws


@asynccontextmanager
async def _client(door: Door) -> AsyncGenerator[Client]:
    async with AsyncExitStack() as held, aiohttp.ClientSession() as http:
        yield Client(door, held, http)
