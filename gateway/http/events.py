"""/v1/projects/{p}/events: the event log as a stream to read, as the Durable Streams protocol has it.

An offset is the number of an event in 20 digits, so that offsets sort as text. `-1` is the beginning,
`now` the end. A read answers with a JSON array, and says with `Stream-Next-Offset` where to go on.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from db.live import log
from gateway.feed.feeds import Watcher, frame
from gateway.http.callers import Here, Who, check_project
from gateway.problems import Problem
from gateway.state import State

router = APIRouter(prefix="/v1/projects/{project}", tags=["events"])
WAIT = 20.0  # seconds of a long poll
STREAM = 60.0  # seconds of a stream of server-sent events; the client begins another
PAGE = 500
START, NOW = "-1", "now"
EPOCH, INTERVAL = 1728432000, 20  # of cursors, by which caches tell one poll from the next
Offset = Annotated[str | None, Query()]
# What a page of another origin is shown of an answer.
HEADERS = ("Stream-Next-Offset", "Stream-Up-To-Date", "Stream-Cursor", "ETag", "Retry-After")
OF_BODY = ("content-length", "content-type")
OURS = {"Cross-Origin-Resource-Policy": "same-origin"}  # no other site's page embeds it


@router.head("/events", include_in_schema=False)
async def measure(here: Here, who: Who, project: str) -> Response:
    """Where the log ends."""
    await check_project(here, who, project)
    return Response(
        media_type="application/json",
        headers={
            "Stream-Next-Offset": written(await head(here, project)),
            "Cache-Control": "no-store",
        },
    )


@router.get(
    "/events",
    response_model=list[dict[str, Any]],
    responses={
        204: {"description": "Nothing new."},
        304: {"description": "As it was, by its ETag."},
    },
)
async def read(
    here: Here,
    who: Who,
    request: Request,
    project: str,
    offset: Offset = None,
    live: Literal["sse", "long-poll"] | None = None,
    cursor: Annotated[str | None, Query(max_length=40)] = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Events after `offset`; with `live` also those that are still to come. `Last-Event-ID` is what a
    browser's EventSource says when it connects again: it goes before the offset of its address."""
    await check_project(here, who, project)
    if len(request.query_params.getlist("offset")) > 1:
        raise Problem(400, "bad_offset", "One offset is needed, not several.")
    if live and offset is None:
        raise Problem(
            400, "bad_offset", "With live an offset is needed: -1, now, or one that was given."
        )
    if live == "sse" and last_event_id:
        offset = last_event_id
    end = await head(here, project)
    last = _position(START if offset is None else offset, end)
    if live == "sse":
        return StreamingResponse(
            _events(here, project, last, cursor),
            headers=OURS
            | {
                "Content-Type": "text/event-stream",  # as the protocol has it: no charset
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
            },
        )
    if live == "long-poll":
        return await _poll(here, project, last, cursor)
    page = await _page(here, project, last, None)
    known = [
        one.strip().removeprefix("W/")
        for one in request.headers.get("if-none-match", "").split(",")
    ]
    if page.headers["ETag"] in known:
        kept = {name: value for name, value in page.headers.items() if name not in OF_BODY}
        return Response(status_code=304, headers=kept)
    return page


async def head(here: State, project: str) -> int:
    """The number of the newest event; 0: there is none."""
    async with here.pool.connection() as conn:
        return (await log.heads(conn, [project])).get(project, 0)


def written(seq: int) -> str:
    """An offset."""
    return f"{seq:020d}"


def _position(offset: str, end: int) -> int:
    """The number before the first event that is asked for. Raises Problem; also for one that the log
    has not reached: its project began anew, or Postgres was restored."""
    if offset == START:
        return 0
    if offset == NOW:
        return end
    if not (offset.isascii() and offset.isdigit() and len(offset) == 20):
        raise Problem(
            400, "bad_offset", "The offset is none that was given: begin with -1 or now."
        )
    if int(offset) > end:
        raise Problem(410, "gone", "The log is another one now, and shorter: begin with -1.")
    return int(offset)


async def _page(here: State, project: str, last: int, cursor: str | None) -> Response:
    async with here.pool.connection() as conn:
        rows = await log.since(conn, project, last, PAGE)
    reached = rows[-1].seq if rows else last
    began = rows[-1].at.timestamp() if rows else 0  # tells the log from one of before
    headers = OURS | {
        "Stream-Next-Offset": written(reached),
        "Cache-Control": "no-store",
        "ETag": f'"{project}:{last}:{reached}:{began}"',
    }
    if len(rows) < PAGE:
        headers["Stream-Up-To-Date"] = "true"
    if cursor is not None:
        headers["Stream-Cursor"] = cursor
    body = "[" + ",".join(_told(frame(row)) for row in rows) + "]"
    return Response(body, media_type="application/json", headers=headers)


def _told(text: str) -> str:
    """An event without what names a frame of the WebSocket."""
    return "{" + text.removeprefix('{"t": "event", ')


async def _poll(here: State, project: str, last: int, cursor: str | None) -> Response:
    next_cursor = _cursor(cursor)
    async with here.feeds.watch(project) as watcher:
        if not await _news(watcher, last, WAIT):
            return Response(
                status_code=204,
                headers=OURS
                | {
                    "Stream-Next-Offset": written(last),
                    "Stream-Up-To-Date": "true",
                    "Stream-Cursor": next_cursor,
                    "Cache-Control": "no-store",
                },
            )
    return await _page(here, project, last, next_cursor)


async def _news(watcher: Watcher, last: int, longest: float) -> bool:
    """Whether there is more than number `last`, within so many seconds."""
    try:
        async with asyncio.timeout(longest):
            while watcher.feed.head <= last:
                watcher.news.clear()
                await watcher.news.wait()
    except TimeoutError:
        return False
    return True


async def _events(
    here: State, project: str, last: int, cursor: str | None
) -> AsyncGenerator[str]:
    end = time.monotonic() + STREAM
    async with here.feeds.watch(project) as watcher:
        first = True
        while (left := end - time.monotonic()) > 0:
            async with here.pool.connection() as conn:
                rows = await log.since(conn, project, last, PAGE)
            if rows:
                last = rows[-1].seq
                lines = "[" + ",".join(_told(frame(row)) for row in rows) + "]"
                yield f"event: data\ndata: {lines}\nid: {written(last)}\n\n"
            if rows or first:
                told: dict[str, Any] = {
                    "streamNextOffset": written(last),
                    "streamCursor": _cursor(cursor),
                }
                if last >= watcher.feed.head:
                    told["upToDate"] = True
                yield f"event: control\ndata:{json.dumps(told)}\nid: {written(last)}\n\n"
            first = False
            await _news(watcher, last, min(left, 15.0))
            if watcher.feed.head <= last:
                yield ": alive\n\n"


NUMBER = re.compile(r"[0-9]{1,15}")


def _cursor(given: str | None) -> str:
    """A number that grows: a cache must not answer one poll with what answered the last."""
    now = int((time.time() - EPOCH) / INTERVAL)
    if given is not None and NUMBER.fullmatch(given) and int(given) >= now:
        return str(int(given) + random.randint(1, 180))
    return str(now)
