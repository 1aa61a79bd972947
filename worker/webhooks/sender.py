"""The sender: a thread of every relay that sends what is due. Any number of them side by side.

What fails is tried again after 5 s, 15 s, 45 s … an hour, each less up to half by chance, for a day;
then it is given up, and `baton webhooks` shows it.
"""

import asyncio
import random
import threading
from datetime import timedelta

import httpx
import psycopg
import structlog
from psycopg.rows import class_row

from config.settings import settings
from db.core.pool import connection
from db.jobs import webhooks
from db.jobs.webhooks import Due
from worker.failures.retry import on_blip
from worker.live.told import JOB, Job
from worker.webhooks import signing
from worker.webhooks.post import Answer, client, post

log = structlog.get_logger()

MANY = 32  # under way at a time
LOOK = 0.5  # seconds between two looks
PAUSE = 5.0  # seconds, after what should not happen
FIRST, LONGEST, TIMES = timedelta(seconds=5), timedelta(hours=1), 3
FOR = timedelta(days=1)
UNSIGNED = "No webhook is sent: set BATON_CALLBACK_SECRET or BATON_SECRET for the relay too."


def send_for_good(ended: threading.Event) -> None:
    """Send until `ended`. Without a secret nothing is sent: what is due waits for one."""
    if not signing.secrets():
        if settings().callback_hosts:
            log.warning("webhooks.unsigned", error=UNSIGNED)
        return
    while not ended.is_set():
        try:
            asyncio.run(_send(ended))
        except Exception as exc:  # nothing here may end the thread
            log.warning("webhooks.wait", error=f"{type(exc).__name__}: {exc}")
            ended.wait(PAUSE)


async def _send(ended: threading.Event) -> None:
    under_way = set[asyncio.Task[None]]()
    async with client() as http:
        while not ended.is_set():
            found = await asyncio.to_thread(_take, MANY - len(under_way))
            under_way |= {asyncio.create_task(_one(http, due)) for due in found}
            if under_way:
                _, under_way = await asyncio.wait(
                    under_way, timeout=LOOK, return_when=asyncio.FIRST_COMPLETED
                )
            else:
                await asyncio.sleep(LOOK)


def _take(many: int) -> list[Due]:
    if not many:
        return []
    try:
        with connection() as conn:
            return webhooks.take(conn, many)
    except psycopg.Error as exc:  # it is away: those under way go on
        log.warning("webhooks.wait", error=type(exc).__name__)
        return []


async def _one(http: httpx.AsyncClient, due: Due) -> None:
    """Send one and write down what came of it. What cannot be written is sent again."""
    try:
        body = await asyncio.to_thread(_body, due)
        if body is None:
            answer = Answer(error="Its job is gone.", final=True)
        else:
            answer = await post(http, due.url, due.host, f"msg_{due.chain_id.hex}", body)
        await asyncio.to_thread(_book, due, answer)
    except Exception as exc:  # of one, which ends no other
        log.warning("webhook.waits", chain=str(due.chain_id), error=type(exc).__name__)


@on_blip
def _body(due: Due) -> str | None:
    """The job as GET /v1/jobs/{id} gives it; None: it is not kept any more."""
    with connection() as conn, conn.cursor(row_factory=class_row(Job)) as cur:
        job = cur.execute(JOB, (due.chain_id,)).fetchone()
    return job.model_dump_json() if job else None


@on_blip
def _book(due: Due, answer: Answer) -> None:
    with connection() as conn:
        if answer.error is None and answer.status is not None:
            webhooks.delivered(conn, due, answer.status)
            return
        again = None if answer.final else _pause(due)
        webhooks.failed(conn, due, answer.error or "", answer.status, again)
    if again is None:
        log.warning("webhook.given_up", chain=str(due.chain_id), error=answer.error)


def _pause(due: Due) -> timedelta | None:
    """After how long it is tried again; None: not any more."""
    if due.age > FOR:
        return None
    longest = min(FIRST * TIMES ** min(due.tries - 1, 20), LONGEST)
    return longest * random.uniform(0.5, 1)
