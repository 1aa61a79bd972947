"""Asking, as `baton bench live` measures it: over HTTP, and by the SQL function itself, in the same run.

Each request over HTTP costs processor time of three: the gateway, Postgres, and this client, which is to
be the least of them. So it writes bytes that were made before, and reads no more than it must.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import psutil
import psycopg
import uvloop

from db.core.pool import connect
from db.jobs import jobs
from worker.client import Build
from worker.requests import params

WARM = 320  # before those that are counted: connections are made, statements planned
ASKED = 2_000
AT_ONCE = 16
END = b"\r\n\r\n"
OTHERS = (
    "select pid from pg_stat_activity where datname = current_database()"
    " and pid <> pg_backend_pid()"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of it, in seconds."""

    took: list[float]  # each of them
    within: float
    spent: dict[str, float]  # processor time, by whose it was

    def rows(self, what: str, how: str) -> Iterator[tuple[str, str, str]]:
        """As the table has them."""
        many = len(self.took)
        yield what, f"{many / self.within:.0f}/s, {spread(self.took)}", f"{many}, {how}"
        for who, spent in self.spent.items():
            yield f"  of {who}", f"{spent / many * 1000:.2f} ms of a processor each", ""


def spread(seconds: list[float]) -> str:
    """The middle, and what one in a hundred is above."""
    ordered = sorted(seconds)
    p50, p99 = statistics.median(ordered), ordered[int(len(ordered) * 0.99)]
    return f"p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms"


def over_http(database_url: str, port: int, key: str, pid: int) -> Asked:
    """Requests of `AT_ONCE` producers to the gateway of that process, each of which waits for its
    answer before the next."""
    took = list[float]()
    uvloop.run(_all(port, key, [f"w{n}" for n in range(WARM)], []))
    with connect(database_url) as conn:
        before = _spent(conn, pid)
        began = time.perf_counter()
        uvloop.run(_all(port, key, [f"h{n}" for n in range(ASKED)], took))
        within = time.perf_counter() - began
        after = _spent(conn, pid)
    return Asked(took, within, {who: after[who] - before[who] for who in before})


def _spent(conn: psycopg.Connection, pid: int) -> dict[str, float]:
    theirs = [cast("int", one) for (one,) in conn.execute(OTHERS)]
    return {
        "the gateway": _processor(pid),
        "Postgres": sum(map(_processor, theirs)),
        "this client": time.process_time(),
    }


def _processor(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


async def _all(port: int, key: str, projects: list[str], took: list[float]) -> None:
    shares = (projects[nth::AT_ONCE] for nth in range(AT_ONCE))
    await asyncio.gather(*(_one(port, key, share, took) for share in shares))


async def _one(port: int, key: str, projects: list[str], took: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in [_request(key, project) for project in projects]:
        at = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(END)
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        answer = await reader.readexactly(int(length))
        took.append(time.perf_counter() - at)
        assert b" 202 " in head, head + answer
    writer.close()


def _request(key: str, project: str) -> bytes:
    body = json.dumps({"kind": "build", "project": project, "user": "u0", "prompt": "go"})
    return (
        "POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def in_sql(database_url: str) -> Asked:
    """The function itself, one statement after the other on one connection."""
    took = list[float]()
    with connect(database_url) as conn:
        backend = conn.info.backend_pid
        before, own, began = _processor(backend), time.process_time(), time.perf_counter()
        for n in range(ASKED):
            given = params(Build(project=f"s{n}", user="u0", prompt="go"), None)
            at = time.perf_counter()
            conn.execute(jobs.ENQUEUE, given)
            took.append(time.perf_counter() - at)
        within = time.perf_counter() - began
        spent = {
            "Postgres": _processor(backend) - before,
            "this client": time.process_time() - own,
        }
    return Asked(took, within, spent)
