"""A gateway in a process of its own, and who calls it.

The fixtures are for modules to import: each has a gateway and a database of its own.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest
from psycopg import Connection
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from db.jobs import outbox
from db.live import keys
from dev.stack.processes import free_port
from tests.databases import database
from tests.waiting import wait_until

CHECKOUT = Path(__file__).parents[1]
Frame = dict[str, Any]


@dataclass
class Gateway:
    """Where it is, and a key of the account acme."""

    process: "subprocess.Popen[bytes]"
    url: str
    key: str
    log: Path

    @property
    def http(self) -> httpx.Client:
        """A producer with the key."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.key}"},
            trust_env=False,
            timeout=30,
        )

    @property
    def callers(self) -> int:
        """How many connections it has of those who call it, until it has noticed that they went."""
        port = urlsplit(self.url).port
        held = psutil.Process(self.process.pid).net_connections("tcp")
        return sum(one.laddr.port == port and one.status != psutil.CONN_LISTEN for one in held)

    def ask(self, project: str, prompt: str = "go", **more: Any) -> str:
        """Ask for a build; the job's id."""
        body = {"kind": "build", "project": project, "user": "ann", "prompt": prompt, **more}
        with self.http as http:
            answer = http.post("/v1/jobs", json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def ticket(self, project: str, user: str = "ann") -> str:
        with self.http as http:
            answer = http.post("/v1/tickets", json={"project": project, "user": user})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["ticket"])


@contextmanager
def gateway(
    database_url: str, redis_url: str, log: Path, *, module: str = "gateway", **more: str
) -> Generator[Gateway]:
    """One of them until the block ends. `module`: what is run as one."""
    port = more.get("BATON_WEB_PORT") or str(free_port())
    env = {
        **os.environ,
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "BATON_WEB_PORT": port,
        "BATON_SECRET": "a secret of the tests, which is long enough",
        "PYTHONPATH": str(CHECKOUT),
        **more,
    }
    with psycopg.connect(database_url, autocommit=True) as conn:
        key, _ = keys.create(conn, "acme", "tests", ["jobs"])
    url = f"http://127.0.0.1:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=env, stdout=out, stderr=out, cwd=log.parent
        )
        try:
            wait_until(lambda: _serves(url), description=f"a gateway: {log.read_text()[-500:]}")
            yield Gateway(process, url, key, log)
        finally:
            process.kill()
            process.wait()


def _serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def url(postgres: str, template: str) -> Iterator[str]:
    with database(postgres, f"template {template} strategy file_copy") as made:
        yield made


@pytest.fixture(scope="module")
def at(
    url: str, redis_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with gateway(url, redis_server, tmp_path_factory.mktemp("gateway") / "log") as one:
        yield one


@pytest.fixture
def ledger(url: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def project(at: Gateway, ledger: Connection) -> str:
    """A project with two events: its first build was asked for."""
    name = f"shop-{uuid4().hex[:8]}"
    at.ask(name)
    outbox.look(ledger)
    return name


@dataclass
class Tab:
    """One browser's connection, and what came over it."""

    ws: ClientConnection
    got: list[Frame] = field(default_factory=list[Frame])

    async def say(self, **frame: Any) -> None:
        await self.ws.send(json.dumps(frame))

    async def next(self, name: str, *, within: float = 60.0) -> Frame:
        """The next frame of that name; those before it are kept too."""
        async with asyncio.timeout(within):
            while True:
                frame: Frame = json.loads(await self.ws.recv())
                self.got.append(frame)
                if frame["t"] == name:
                    return frame

    async def closed(self, *, within: float = 60.0) -> tuple[int, str]:
        """The code and the reason that it is closed with."""
        async with asyncio.timeout(within):
            with pytest.raises(ConnectionClosed) as told:  # noqa: PT012 - until it is
                while True:
                    self.got.append(json.loads(await self.ws.recv()))
        assert told.value.rcvd, "it was closed, not cut"
        return told.value.rcvd.code, told.value.rcvd.reason

    @property
    def seqs(self) -> list[int]:
        return [frame["seq"] for frame in self.got if frame["t"] == "event"]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.ws.close()


async def opened(at: Gateway, *, origin: str | None = None, cookie: str | None = None) -> Tab:
    """A connection that has said nothing yet."""
    headers = {"Cookie": cookie} if cookie else {}
    url = at.url.replace("http", "ws") + "/v1/live"
    return Tab(await connect(url, origin=origin, additional_headers=headers, proxy=None))  # pyright: ignore[reportArgumentType]


async def tab(at: Gateway, project: str, *, last: int = 0, epoch: str | None = None) -> Tab:
    """A connection that has said hello with a ticket of ann's."""
    one = await opened(at)
    ticket = at.ticket(project)
    await one.say(
        t="hello", v=1, project=project, ticket=ticket, tab=str(uuid4()), epoch=epoch, last=last
    )
    return one


def talk(story: Callable[[], Awaitable[None]]) -> None:
    """Run what is told in a coroutine."""

    async def inside() -> None:
        await story()

    asyncio.run(inside())
