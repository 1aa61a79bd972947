"""The Messages API on the wire, as the Claude Code CLI and the Anthropic SDKs speak it."""

import asyncio
import json
import logging
import socket
import struct
from contextlib import suppress
from dataclasses import replace
from typing import cast

from aiohttp import web

from dev.standin import cache, stream
from dev.standin.faults import ANSWERS, IN_MIDSTREAM, Fault, error_body
from dev.standin.messages import JSON
from dev.standin.model import Model, Seen
from dev.standin.reply import Reply
from dev.standin.scenario import Think

LARGEST = 32 * 2**20  # bytes of a request
PING = 5.0  # seconds between signs of life in a long pause
DRIBBLE = 12  # characters in a slow delta
FLUSH = 0.05  # seconds in which what was written goes out before a connection is cut
MODELS = ("claude-opus-5-5", "claude-sonnet-4-5", "claude-haiku-4-5")

log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that the API would not take: status, error type, message."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error = status, error


class Api:
    """The handlers for one model; `speed` divides the scenario's pauses, 0 leaves them out."""

    def __init__(self, model: Model, *, speed: float) -> None:
        self.model = model
        self.speed = speed

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/messages", self.messages),
            web.post("/v1/messages/count_tokens", self.count_tokens),
            web.get("/v1/models", self.models),
            web.get("/v1/models/{id}", self.one_model),
            web.route("HEAD", "/", self.alive),
            web.get("/", self.alive, allow_head=False),
            web.route("*", "/{path:.*}", self.unknown),
        ]

    async def messages(self, request: web.Request) -> web.StreamResponse:
        try:
            key, body = api_key(request), await checked(request)
        except Refused as refused:
            return error(
                refused.status, error_body(refused.error, str(refused)), "req_standin_refused"
            )
        session = request.headers.get("X-Claude-Code-Session-Id", "")
        seen, said, fault = self.model.see(body, key=key, session=session)
        if fault is not None and fault.kind not in IN_MIDSTREAM:
            self.model.note(replace(seen, fault=fault.kind))
            return await self.fail(request, seen, fault)
        seen, made, usage = self.model.answer(seen, said)
        charged = usage.json(stream.output_tokens(made))
        self.model.note(replace(seen, usage=charged, fault=fault and fault.kind))
        whole = stream.message(made, message_id=message_id(seen), model=seen.model, usage=usage)
        if fault is not None and fault.kind != "slow":
            return await self.break_off(request, seen, broken(whole, made, seen, fault), fault)
        if not body.get("stream"):
            await asyncio.sleep(sum(map(self.seconds, pauses(made))))
            return web.json_response(whole, headers={"request-id": seen.id})
        return await self.send(request, seen, whole, made, pace=fault.pace if fault else 0)

    async def send(
        self, request: web.Request, seen: Seen, whole: JSON, made: Reply, *, pace: float
    ) -> web.StreamResponse:
        """Stream a reply; a client that has gone is no error."""
        response = await begun(request, seen)
        with suppress(ConnectionError):
            for event in stream.events(whole, made, piece=DRIBBLE if pace else stream.PIECE):
                if isinstance(event, Think):
                    await self.pause(event, response)
                    continue
                await response.write(stream.encode(event))
                if pace and event[0] == "content_block_delta":
                    await asyncio.sleep(pace)
            await response.write_eof()
        return response

    async def pause(self, think: Think, response: web.StreamResponse) -> None:
        left = self.seconds(think)
        while left > 0:
            await asyncio.sleep(min(left, PING))
            left -= PING
            await response.write(stream.encode(("ping", {})))

    def seconds(self, think: Think) -> float:
        if think.real:
            return think.seconds
        return think.seconds / self.speed if self.speed else 0.0

    async def fail(self, request: web.Request, seen: Seen, fault: Fault) -> web.StreamResponse:
        """Answer with an error, with nonsense or not at all."""
        if fault.kind in ANSWERS:
            tokens = max(cache.count(seen.body), self.model.limit + 1)
            status, body, headers = fault.answer(
                tokens=tokens, limit=self.model.limit, model=seen.model
            )
            return error(status, body, seen.id, headers)
        if fault.kind == "hang":
            await asyncio.Event().wait()
        if fault.kind == "reset":
            reset(request)
        return web.Response(
            text="<html><body>no message</body></html>",
            content_type="application/json",
            headers={"request-id": seen.id},
        )

    async def break_off(
        self, request: web.Request, seen: Seen, sent: bytes, fault: Fault
    ) -> web.StreamResponse:
        """Send what is there of an answer, and end in order or cut the connection."""
        response = await begun(request, seen)
        with suppress(ConnectionError):
            await response.write(sent)
            if fault.kind != "cut":
                await response.write_eof()
            elif request.transport:
                await asyncio.sleep(FLUSH)
                request.transport.abort()
        return response

    async def count_tokens(self, request: web.Request) -> web.Response:
        try:
            api_key(request)
            body = await checked(request)
        except Refused as refused:
            return error(
                refused.status, error_body(refused.error, str(refused)), "req_standin_refused"
            )
        return web.json_response({"input_tokens": cache.count(body)})

    async def models(self, _: web.Request) -> web.Response:
        data = [described(name) for name in MODELS]
        return web.json_response(
            {"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}
        )

    async def one_model(self, request: web.Request) -> web.Response:
        return web.json_response(described(request.match_info["id"]))

    async def alive(self, _: web.Request) -> web.Response:
        return web.Response(text="The stand-in model.\n")

    async def unknown(self, request: web.Request) -> web.Response:
        what = f"{request.method} {request.path}"
        self.model.unknown.append(what)
        log.warning("nothing answers %s", what)
        return error(
            404, error_body("not_found_error", f"Not found: {what}"), "req_standin_unknown"
        )


def api_key(request: web.Request) -> str:
    """The caller's key, from either of the two headers."""
    bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
    key = request.headers.get("x-api-key") or bearer
    if not key:
        raise Refused(401, "authentication_error", "x-api-key header is required")
    return key


async def checked(request: web.Request) -> JSON:
    """The request's body, if it is one that the API would read."""
    try:
        body = json.loads(await request.read())
    except web.HTTPRequestEntityTooLarge as large:
        raise Refused(413, "request_too_large", "Request exceeds the maximum size") from large
    except ValueError as broken:
        raise Refused(
            400, "invalid_request_error", "The request body is not valid JSON"
        ) from broken
    for name, kind in (("model", str), ("messages", list)):
        if not isinstance(body, dict) or not isinstance(cast(JSON, body).get(name), kind):
            raise Refused(400, "invalid_request_error", f"{name}: Field required")
    told = cast(JSON, body)
    if not told["messages"] or not all(isinstance(m, dict) for m in told["messages"]):
        raise Refused(400, "invalid_request_error", "messages: a list of messages is required")
    return told


def broken(whole: JSON, made: Reply, seen: Seen, fault: Fault) -> bytes:
    """The first part of an answer, up to where the fault breaks it off."""
    if not seen.body.get("stream"):  # the CLI asks so once a stream has failed
        body = json.dumps(whole).encode()
        return body[: len(body) // 2]
    parts = [e for e in stream.events(whole, made) if not isinstance(e, Think)]
    ends = [i for i, (kind, _) in enumerate(parts) if kind == "content_block_stop"]
    sent = b"".join(map(stream.encode, parts[: ends[0]]))
    if fault.kind == "error_event":
        problem = error_body("overloaded_error", fault.message or "Overloaded")
        return sent + stream.encode(("error", problem))
    return sent[:-20] if fault.kind == "cut" else sent


async def begun(request: web.Request, seen: Seen) -> web.StreamResponse:
    """The beginning of an answer: of an event stream, if one was asked for."""
    kind = "text/event-stream" if seen.body.get("stream") else "application/json"
    headers = {"content-type": kind, "cache-control": "no-cache", "request-id": seen.id}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    return response


def error(
    status: int, body: JSON, request_id: str, headers: dict[str, str] | None = None
) -> web.Response:
    """An error in the API's shape, with its request id in body and header."""
    return web.json_response(
        {**body, "request_id": request_id},
        status=status,
        headers={"request-id": request_id, **(headers or {})},
    )


def reset(request: web.Request) -> None:
    """End the connection with a TCP reset."""
    if request.transport is None:
        return
    connection: socket.socket = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def message_id(seen: Seen) -> str:
    return seen.id.replace("req_", "msg_")


def pauses(made: Reply) -> list[Think]:
    return [p for p in made.parts if isinstance(p, Think)]


def described(name: str) -> JSON:
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-01-01T00:00:00Z",
    }
