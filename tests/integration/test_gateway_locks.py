"""Somebody's open transaction holds what a user's requests need: they are refused soon, to be sent again, and
the gateway serves everybody else meanwhile."""

import asyncio
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from psycopg import Connection

from tests.gateways import Gateway, gateway, tab, talk
from tests.gateways import at as at
from tests.gateways import ledger as ledger
from tests.gateways import url as url
from tests.ledger import ask, blocked, claim, finish
from tests.machine import needs_pgbouncer
from tests.pooler import pgbouncer
from tests.waiting import wait_until

MANY = 16  # requests, of which a gateway's pool has room for eight
HALF = 4


@pytest.fixture(autouse=True)
def rate(ledger: Connection) -> Iterator[None]:
    """A user's requests are counted, so one that is not committed holds the others."""
    ledger.execute(
        "insert into baton_settings (name, value) values ('user_rate', '1000')"
        " on conflict (name) do update set value = excluded.value"
    )
    yield
    ledger.execute("update baton_settings set value = '0' where name = 'user_rate'")


@contextmanager
def held(url: str, project: str) -> Generator[None]:
    """While a producer's transaction has asked for ann and goes on."""
    with psycopg.connect(url) as holder:
        ask(holder, project=project, user_id="ann")
        yield
        holder.rollback()


def post(at: Gateway, place: str, json: Any, key: str = "") -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else None
    with at.http as http:
        return http.post(f"/v1/jobs{place}", json=json, headers=headers)


def build(project: str, user: str = "ann") -> dict[str, str]:
    return {"kind": "build", "project": project, "user": user, "prompt": "go"}


def refused(answer: httpx.Response) -> bool:
    told = answer.json()
    again = "send it again" in told["detail"] and answer.headers["Retry-After"] == "2"
    return (answer.status_code, told["code"], again) == (503, "postgres_away", True)


def made(ledger: Connection, project: str) -> int:
    return ledger.execute(
        "select from jobs where project_id like %s", (f"{project}%",)
    ).rowcount


@pytest.fixture
def project() -> str:
    return f"held-{uuid4().hex[:8]}"


def check_refused_and_others_served(at: Gateway, url: str, ledger: Connection, project: str):
    with ThreadPoolExecutor(MANY) as threads:
        with held(url, f"{project}-0"):
            asked: list[Future[httpx.Response]] = [
                threads.submit(post, at, "", build(f"{project}-{n}"), f"key-{n}")
                for n in range(1, MANY + 1)
            ]
            wait_until(lambda: blocked(ledger, HALF), description="as many as may wait")
            assert not blocked(ledger, HALF + 1)
            assert post(at, "", build(f"{project}-bobs", "bob")).status_code == 202
            assert not all(one.done() for one in asked)
            assert all(refused(one.result()) for one in asked)
            assert made(ledger, project) == 1
        again = post(at, "", build(f"{project}-1"), "key-1")
    assert (again.status_code, made(ledger, project)) == (202, 2)


def test_requests_of_a_user_whom_a_transaction_holds_up_are_refused_and_others_are_served(
    at: Gateway, url: str, ledger: Connection, project: str
):
    check_refused_and_others_served(at, url, ledger, project)


@needs_pgbouncer
def test_behind_a_pooler_too_a_request_waits_for_no_lock_for_long(
    url: str, ledger: Connection, project: str, tmp_path: Path
):
    with (
        pgbouncer(url, tmp_path, size=10) as pooled,
        gateway(pooled, "", tmp_path / "log") as at,
    ):
        check_refused_and_others_served(at, url, ledger, project)


def test_messages_of_a_page_are_refused_then_to_be_sent_again(
    at: Gateway, url: str, ledger: Connection, project: str
):
    said = {"t": "msg", "kind": "update", "text": "go"}

    async def story() -> None:
        async with AsyncExitStack() as stays:
            tabs = [
                await stays.enter_async_context(await tab(at, f"{project}-{n}"))
                for n in range(1, 10)
            ]
            for one in tabs:
                await one.next("live")
            with held(url, f"{project}-0"):
                await asyncio.gather(*(one.say(**said, id=str(uuid4())) for one in tabs))
                nacks = [await one.next("nack") for one in tabs]
            await tabs[0].say(**said, id=nacks[0]["id"])
            assert (await tabs[0].next("ack"))["dup"] is False
        assert {(one["code"], one["retry"]) for one in nacks} == {("postgres_away", True)}
        assert all("send it again" in one["text"] for one in nacks)

    talk(story)
    assert made(ledger, project) == 1


def test_a_retry_is_refused_then_too(at: Gateway, url: str, ledger: Connection, project: str):
    job = at.ask(project)
    mine = claim(ledger, UUID(job))
    assert mine
    finish(ledger, mine, "failed")
    with held(url, f"{project}-0"):
        assert refused(post(at, f"/{job}/retry", None, "once-more"))
    assert post(at, f"/{job}/retry", None, "once-more").status_code == 202
    assert made(ledger, project) == 2


def test_an_answer_is_refused_then_and_a_cancel_is_written_down(
    at: Gateway, url: str, ledger: Connection, project: str
):
    job = at.ask(project)
    ledger.execute(
        "update jobs set state = 'parked', error_class = 'ask' where id = %s", (job,)
    )
    with psycopg.connect(url) as holder:
        holder.execute("select from jobs where id = %s for update", (job,))
        assert refused(post(at, f"/{job}/answer", {"choice": "start_new"}))
        assert post(at, f"/{job}/cancel", None).status_code == 200
    revoked = ledger.execute("select from revoked_tasks where job_id = %s", (job,)).rowcount
    assert revoked == 1
