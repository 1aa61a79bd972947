"""Baton over HTTP: `Baton`, and `AsyncBaton` for asyncio. Both have the same calls.

What is safe to send twice is sent again when the gateway does not answer; a request for a job and
a retry are, since each has a key.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any, Literal, Self, TypeVar
from uuid import UUID

import httpx

from baton_client import calls
from baton_client.calls import AGAIN, Call, List
from baton_client.requests import Ask
from baton_client.results import Asked, Events, Job, Page, Ticket

T = TypeVar("T")
Choice = Literal["retry", "start_new", "keep", "rewind", "repair"]
TIMES = 4  # that a call is sent
PAUSE = 0.5  # seconds before the second time, twice as long before each later one
POLL = 30.0  # seconds for which the gateway is asked to wait
LOOK = 0.5  # seconds between two looks at a chain that goes on after its job
TIMEOUT = 75.0  # seconds; longer than any call waits
HOPELESS = (httpx.LocalProtocolError, httpx.UnsupportedProtocol)  # it was not even sent


def _headers(key: str, call: Call[Any]) -> httpx.Headers:
    given = f"Bearer {key.strip()}".strip()  # a key from a file has a line break
    return httpx.Headers({"Authorization": given, **call.headers}, encoding="utf-8")


class Baton:
    """A gateway, and who you are to it. Raises Refused, Failed, or httpx.TransportError."""

    def __init__(self, url: str, key: str, *, http: httpx.Client | None = None) -> None:
        self._http = http or httpx.Client(timeout=TIMEOUT)
        self._url, self._key = url.rstrip("/"), key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def enqueue(self, ask: Ask) -> Asked:
        """Ask for a job."""
        return self._do(calls.enqueue(ask))

    def job(self, job_id: UUID) -> Job:
        """The job as it stands."""
        return self._do(calls.job(job_id))

    def wait(self, job_id: UUID, timeout: float | None = None, *, chain: bool = False) -> Job:
        """The job once it has ended; with `chain` once all that follows it has. Raises TimeoutError
        after `timeout` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = POLL if end is None else max(end - time.monotonic(), 0)
            found = self._do(calls.job(job_id, min(left, POLL)))
            if found.chain_ended if chain else found.ended:
                return found
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"Job {job_id} has not ended in {timeout} s.")
            if found.ended:
                time.sleep(LOOK)

    def cancel(self, job_id: UUID) -> Job:
        """Cancel the job and what follows in its chain."""
        return self._do(calls.cancel(job_id))

    def retry(self, job_id: UUID, *, fresh: bool = False, key: str | None = None) -> Asked:
        """Ask for a finished job once more: a new job, under one `key` always the same."""
        return self._do(calls.retry(job_id, fresh, key))

    def answer(self, job_id: UUID, choice: Choice) -> Job:
        """Tell a job that asked what to do about its lost session."""
        return self._do(calls.answer(job_id, choice))

    def project(self, name: str) -> dict[str, Any]:
        """Its head, its newest versions, its open work."""
        return self._do(calls.project(name))

    def page(
        self, name: str, what: List, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """A page of its `chain`, `chat` or `jobs`."""
        return self._do(calls.page(name, what, cursor, limit))

    def diff(self, name: str, version: str) -> bytes:
        """What the version changed, as a git patch."""
        return self._do(calls.diff(name, version))

    def events(self, name: str, offset: str = "-1") -> Generator[Events]:
        """Its events from that offset on, for ever; each with the offset from which to read on."""
        wait = False
        while True:
            found = self._do(calls.events(name, offset, wait))
            offset, wait = found.offset, found.up_to_date
            if found.items:
                yield found

    def ticket(self, name: str, user: str) -> Ticket:
        """A ticket for a browser of that user."""
        return self._do(calls.ticket(name, user))

    def _do(self, call: Call[T]) -> T:
        for time_left in reversed(range(TIMES)):
            try:
                answer = self._http.request(
                    call.method, self._url + call.path, params=call.params, json=call.json,
                    headers=_headers(self._key, call),
                )  # fmt: skip
            except httpx.TransportError as exc:
                if isinstance(exc, HOPELESS) or not call.safe or not time_left:
                    raise
            else:
                if answer.status_code not in AGAIN or not call.safe or not time_left:
                    return calls.read(call, answer)
            time.sleep(PAUSE * 2 ** (TIMES - 1 - time_left))
        raise AssertionError


class AsyncBaton:
    """As `Baton`, for asyncio."""

    def __init__(self, url: str, key: str, *, http: httpx.AsyncClient | None = None) -> None:
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT)
        self._url, self._key = url.rstrip("/"), key

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def enqueue(self, ask: Ask) -> Asked:
        """Ask for a job."""
        return await self._do(calls.enqueue(ask))

    async def job(self, job_id: UUID) -> Job:
        """The job as it stands."""
        return await self._do(calls.job(job_id))

    async def wait(self, job_id: UUID, *, chain: bool = False) -> Job:
        """The job once it has ended; with `chain` once all that follows it has. To wait no longer
        than some time, use `asyncio.timeout`."""
        while True:
            found = await self._do(calls.job(job_id, POLL))
            if found.chain_ended if chain else found.ended:
                return found
            if found.ended:
                await asyncio.sleep(LOOK)

    async def cancel(self, job_id: UUID) -> Job:
        """Cancel the job and what follows in its chain."""
        return await self._do(calls.cancel(job_id))

    async def retry(
        self, job_id: UUID, *, fresh: bool = False, key: str | None = None
    ) -> Asked:
        """Ask for a finished job once more: a new job, under one `key` always the same."""
        return await self._do(calls.retry(job_id, fresh, key))

    async def answer(self, job_id: UUID, choice: Choice) -> Job:
        """Tell a job that asked what to do about its lost session."""
        return await self._do(calls.answer(job_id, choice))

    async def project(self, name: str) -> dict[str, Any]:
        """Its head, its newest versions, its open work."""
        return await self._do(calls.project(name))

    async def page(
        self, name: str, what: List, *, cursor: str | None = None, limit: int = 50
    ) -> Page:
        """A page of its `chain`, `chat` or `jobs`."""
        return await self._do(calls.page(name, what, cursor, limit))

    async def diff(self, name: str, version: str) -> bytes:
        """What the version changed, as a git patch."""
        return await self._do(calls.diff(name, version))

    async def events(self, name: str, offset: str = "-1") -> AsyncGenerator[Events]:
        """Its events from that offset on, for ever; each with the offset from which to read on."""
        wait = False
        while True:
            found = await self._do(calls.events(name, offset, wait))
            offset, wait = found.offset, found.up_to_date
            if found.items:
                yield found

    async def ticket(self, name: str, user: str) -> Ticket:
        """A ticket for a browser of that user."""
        return await self._do(calls.ticket(name, user))

    async def _do(self, call: Call[T]) -> T:
        for time_left in reversed(range(TIMES)):
            try:
                answer = await self._http.request(
                    call.method, self._url + call.path, params=call.params, json=call.json,
                    headers=_headers(self._key, call),
                )  # fmt: skip
            except httpx.TransportError as exc:
                if isinstance(exc, HOPELESS) or not call.safe or not time_left:
                    raise
            else:
                if answer.status_code not in AGAIN or not call.safe or not time_left:
                    return calls.read(call, answer)
            await asyncio.sleep(PAUSE * 2 ** (TIMES - 1 - time_left))
        raise AssertionError
