"""Streams that anybody may write, before the events of a gateway: for others' tests of the read side.

python -m tests.live.streams DATABASE_URL GATEWAY KEY PORT

The suite of the Durable Streams project writes what it reads, in bytes of any kind; our log is
written by Baton alone. So a write is an event here, and what is read comes from the gateway: status,
headers, offsets, and which events in which order. Only the events are unwrapped.
"""

import base64
import json
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import httpx
import psycopg
import uvicorn
from psycopg import Connection
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from db.core.events import Event, append

BEGIN = "insert into projects (project_id, user_id, workspace) values (%s, 'ann', %s)"
HEAD = "select event_seq from projects where project_id = %s"
OURS = ("content-length", "content-type", "transfer-encoding", "date", "server")


def is_json(kind: str) -> bool:
    return kind.partition(";")[0].strip().lower() == "application/json"


def unwrapped(rows: list[dict[str, Any]], kind: str) -> bytes:
    data = [row["body"]["data"] for row in rows]
    if is_json(kind):
        return json.dumps(data, separators=(",", ":")).encode()
    return b"".join(base64.b64decode(one) for one in data)


class Empty(ValueError):
    """Nothing is to be written."""


@dataclass
class Streams:
    conn: Connection
    gateway: httpx.AsyncClient
    kinds: dict[str, str] = field(default_factory=dict[str, str])  # content type by project

    async def serve(self, request: Request) -> Response:
        project = sha256(request.url.path.encode()).hexdigest()
        if request.method == "PUT":
            return await self._create(request, project)
        if project not in self.kinds:
            return Response(status_code=404)
        do: dict[str, Callable[[Request, str], Awaitable[Response]]] = {
            "POST": self._append,
            "GET": self._read,
        }
        if request.method in do:
            return await do[request.method](request, project)
        return self._at(project, 200)

    async def _create(self, request: Request, project: str) -> Response:
        kind = request.headers.get("content-type", "application/octet-stream")
        if known := self.kinds.get(project):
            return self._at(project, 200 if known.lower() == kind.lower() else 409)
        self.conn.execute(BEGIN, (project, f"/nowhere/{project}"))
        self.kinds[project] = kind
        if body := await request.body():
            with suppress(Empty):  # it begins with nothing
                self._write(project, body)
        return self._at(project, 201)

    async def _append(self, request: Request, project: str) -> Response:
        try:
            self._write(project, await request.body())
        except ValueError:
            return Response(status_code=400)
        return self._at(project, 204)

    def _write(self, project: str, body: bytes) -> None:
        """Raises ValueError for what is no JSON; Empty."""
        if is_json(self.kinds[project]):
            told: Any = json.loads(body)
            data: list[Any] = told if body.lstrip().startswith(b"[") else [told]
        else:
            data = [base64.b64encode(body).decode()] if body else []
        if not data:
            raise Empty
        append(self.conn, project, [Event("told", None, {"data": one}) for one in data])

    def _at(self, project: str, status: int) -> Response:
        row = self.conn.execute(HEAD, (project,)).fetchone()
        assert row
        headers = {"content-type": self.kinds[project], "stream-next-offset": f"{row[0]:020d}"}
        return Response(status_code=status, headers=headers | {"cache-control": "no-store"})

    async def _read(self, request: Request, project: str) -> Response:
        kind = self.kinds[project]
        asked = self.gateway.build_request(
            "GET",
            f"/v1/projects/{project}/events",
            params=tuple(request.query_params.multi_items()),
            headers={n: v for n, v in request.headers.items() if n == "if-none-match"},
        )
        got = await self.gateway.send(asked, stream=True)
        kept = {name: value for name, value in got.headers.items() if name not in OURS}
        if got.headers.get("content-type", "").startswith("text/event-stream"):
            if not is_json(kind) and not kind.startswith("text/"):
                kept["stream-sse-data-encoding"] = "base64"
            return StreamingResponse(
                _lines(got, kind), headers=kept | {"content-type": "text/event-stream"}
            )
        body = await got.aread()
        if got.status_code != 200:
            return Response(body or None, got.status_code, headers=kept)
        return Response(
            unwrapped(json.loads(body), kind), headers=kept | {"content-type": kind}
        )


async def _lines(got: httpx.Response, kind: str) -> AsyncGenerator[str]:
    try:
        async for line in got.aiter_lines():
            if not line.startswith("data: ["):
                yield line + "\n"
                continue
            body = unwrapped(json.loads(line[6:]), kind)
            plain = is_json(kind) or kind.startswith("text/")
            told = body.decode() if plain else base64.b64encode(body).decode()
            for one in re.split("\r\n|\r|\n", told):
                yield f"data:{one}\n"
    finally:
        await got.aclose()


if __name__ == "__main__":
    dsn, gateway, key, port = sys.argv[1:]
    client = httpx.AsyncClient(
        base_url=gateway,
        headers={"authorization": f"Bearer {key}"},
        timeout=60,
        trust_env=False,
    )
    streams = Streams(psycopg.connect(dsn, autocommit=True), client)
    methods = ["GET", "HEAD", "PUT", "POST"]
    app = Starlette(routes=[Route("/{path:path}", streams.serve, methods=methods)])
    uvicorn.run(app, port=int(port), log_level="warning")
