"""/v1/jobs: asking for work, and what became of it."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from psycopg import AsyncConnection
from psycopg.rows import class_row

from db.core.pool import connection
from db.jobs import jobs as rows
from db.live import owners
from gateway.acts import again, decide, stop
from gateway.http import bodies, forms
from gateway.http.callers import Caller, Here, Producer, Who, bearer, producer, refuse
from gateway.http.routes import got
from gateway.problems import Problem, not_found
from gateway.state import State
from worker import client
from worker.client import Build, ChatPlan, Compaction, Metadata, Refused, Repair, Update
from worker.live.told import JOB, Job
from worker.reports import waits
from worker.requests import Request as Wanted
from worker.requests import readable

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
KINDS = {kind.kind: kind for kind in (Build, Update, Repair, ChatPlan, Metadata, Compaction)}
LOOK_EVERY = 0.1  # seconds between two looks of one who waits
LONGEST = 60.0  # seconds that a request may wait
KEY = {  # as the document has it; the ledger judges it
    "name": "idempotency-key",
    "in": "header",
    "required": False,
    "schema": {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "minLength": 1,
        "maxLength": 200,
        "title": "Idempotency-Key",
    },
}


@router.post(
    "",
    status_code=202,
    response_model=forms.Asked,
    openapi_extra={"parameters": [KEY], **bodies.told(forms.Ask)},
)
async def ask(request: Request) -> Response:
    """Ask for a job. Sent again with the same Idempotency-Key it is the same job."""
    here: State = request.app.state.baton
    body, made = await bodies.read(request), None
    try:
        wanted = _wanted(request, body)
    except (RequestValidationError, Problem, Refused):
        await producer(request)  # who may not ask is told that first
        raise
    if key := bearer(request):
        async with here.asks.of(wanted.user), here.pool.connection() as conn:
            made = await client.enqueue_for_key(conn, wanted, key)
    if made is None:
        await refuse(request)
    job, state = made
    here.feeds.ring()
    asked = forms.Asked(id=job, chain=job, state=state)
    return Response(asked.model_dump_json(), 202, media_type="application/json")


def _wanted(request: Request, body: Any) -> Wanted:
    asked = bodies.fit(forms.Ask, body)
    fields = asked.model_dump(exclude={"kind"}, exclude_unset=True)
    return readable(KINDS[asked.kind](**fields, key=_key(request)))


def _key(request: Request) -> str | None:
    """The key as other doors would be given it: text beyond ASCII comes as UTF-8, or in the Latin-1 of
    older HTTP."""
    given = request.headers.getlist("idempotency-key")
    if len(given) > 1:
        raise Problem(
            422, "bad_input", "One Idempotency-Key is needed, not several.", field="key"
        )
    if not given:
        return None
    try:
        return given[0].encode("latin-1").decode()
    except UnicodeDecodeError:
        return given[0]


@got(router, "/{job}")
async def look(
    here: Here,
    who: Who,
    job: UUID,
    wait: Annotated[float, Query(ge=0, le=LONGEST)] = 0,
) -> Job:
    """The job as it stands; with `wait` the answer comes as soon as it has ended, or then."""
    end = asyncio.get_running_loop().time() + wait
    while True:
        async with here.pool.connection() as conn:
            found = await _visible(conn, who, job)
            if found.ended or asyncio.get_running_loop().time() >= end:
                return await _shown(conn, found)
        await asyncio.sleep(LOOK_EVERY)


async def _visible(conn: AsyncConnection[Any], who: Caller, job: UUID) -> rows.Job:
    """The job, if the caller may see it; the same 404 otherwise."""
    async with conn.cursor(row_factory=class_row(rows.Job)) as cur:
        found = await (await cur.execute(rows.GET, (job,))).fetchone()
    if found is None:
        raise not_found("job")
    if who.guest is not None:
        if (found.project_id, found.user_id) != (who.guest.project, who.guest.user):
            raise not_found("job")
    elif "jobs" not in who.scopes or not await owners.owns(
        conn, who.account or "", found.project_id
    ):
        raise not_found("job")
    return found


async def _shown(conn: AsyncConnection[Any], job: rows.Job) -> Job:
    async with conn.cursor(row_factory=class_row(Job)) as cur:
        told = await (await cur.execute(JOB, (job.id,))).fetchone()
    if told is None:  # it was deleted meanwhile
        raise not_found("job")
    if told.state in ("queued", "parked"):
        told.waits = await anyio.to_thread.run_sync(_why, job.id)
    return told


def _why(job_id: UUID) -> dict[str, Any] | None:
    with connection() as conn:
        found = waits.of_one(conn, job_id)
    return asdict(found) if found else None


@router.post("/{job}/cancel")
async def cancel(here: Here, who: Who, job: UUID) -> Job:
    """Cancel the job and what follows in its chain."""
    async with here.pool.connection() as conn:
        found = await _visible(conn, who, job)
    if found.ended and found.state != "cancelled":
        raise Problem(
            409, "ended", f"The job has ended already ({found.state}): nothing is cancelled."
        )
    await stop(here, found)
    async with here.pool.connection() as conn:
        return await _shown(conn, await _visible(conn, who, job))


@router.post("/{job}/retry", status_code=202, openapi_extra={"parameters": [KEY]})
async def retry(
    request: Request, here: Here, who: Producer, job: UUID, how: forms.Retry | None = None
) -> forms.Asked:
    """Ask for a finished job once more: a new job, under one Idempotency-Key always the same."""
    key = _key(request)
    async with here.pool.connection() as conn:
        found = await _visible(conn, who, job)
    new = await again(here, found, fresh=bool(how and how.fresh), key=key)
    if new is None:
        raise Problem(
            409, "not_ended", f"The job is {found.state}: wait for its end, or cancel it."
        )
    here.feeds.ring()
    return forms.Asked(id=new.id, chain=new.chain_id, state=new.state)


@router.post("/{job}/answer")
async def answer(here: Here, who: Who, job: UUID, said: forms.Choice) -> Job:
    """Tell a job that asked what to do: about its lost session, or a version that fails."""
    async with here.pool.connection() as conn:
        found = await _visible(conn, who, job)
    if not await decide(here, found, said.choice):
        raise Problem(409, "asks_nothing", f"The job {waits.unanswered(found)}.")
    here.feeds.ring()
    async with here.pool.connection() as conn:
        return await _shown(conn, await _visible(conn, who, job))
