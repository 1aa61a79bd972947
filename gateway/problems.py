"""What is wrong with a request: a status, a code that a program reads, one sentence for people."""

import math
from datetime import UTC, datetime
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Match

from gateway import ledger
from worker.failures.refused import Refused

STATUS = {
    "key_conflict": 409,
    "busy": 409,
    "being_deleted": 409,
    "unknown_project": 404,
    "project_unavailable": 404,
    "too_many_requests": 429,
    "not_migrated": 503,
    "wrong_isolation": 500,
    "prompt_too_long": 422,
}


NO_JSON = "The body is not JSON."
NO_OBJECT = "The body must be a JSON object."
NOT_READ = (
    "The body is not read as JSON: send it with the header Content-Type: application/json."
)
UNSTORABLE = (
    "A value cannot be stored: a number is too large, or text has a NUL or is not UTF-8."
)
LONGEST_NAME = 100  # characters of a field's name that are sent back
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# Of what is refused before it comes to a route of ours.
CODES = {404: "not_found", 405: "method_not_allowed", 413: "prompt_too_long"}


class Problem(Exception):
    """An answer that is no success."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.headers, self.more = headers or {}, more


class Refusal(BaseModel):
    """Every answer that is no success: a code for programs, one sentence for people, and the field
    that it is about, if it is about one."""

    model_config = ConfigDict(extra="allow")

    code: str
    detail: str
    field: str | None = None


# What the OpenAPI document says of answers that are no success.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Refusal, "description": "It is not done; `code` and `detail` say why."},
    "5XX": {"model": Refusal, "description": "Not just now: ask again."},
}


def not_found(what: str) -> Problem:
    """Unknown and forbidden look the same."""
    return Problem(404, f"unknown_{what}", f"There is no such {what}.")


async def upgrade() -> None:
    """What is asked for over HTTP is a WebSocket."""
    raise Problem(
        426,
        "upgrade_required",
        "This is a WebSocket: connect to it with ws:// or wss://.",
        headers={"Upgrade": "websocket", "Connection": "Upgrade"},
    )


def of_refusal(refused: Refused) -> Problem:
    """A refusal of `enqueue`, as HTTP says it."""
    headers, more = dict[str, str](), dict[str, Any]()
    if refused.again_at is not None:
        seconds = max((refused.again_at - datetime.now(UTC)).total_seconds(), 1)
        headers["Retry-After"] = str(math.ceil(seconds))
        more |= {"again_at": refused.again_at.isoformat(), "retry_after": round(seconds, 1)}
    if refused.field:
        more["field"] = refused.field
    status = STATUS.get(refused.code, 422)
    if status == 404:
        return not_found("project")
    return Problem(status, refused.code, str(refused), headers=headers, **more)


def answer(problem: Problem) -> JSONResponse:
    """The problem as JSON: {"code", "detail", …}."""
    body = {"code": problem.code, "detail": problem.detail, **problem.more}
    return JSONResponse(body, problem.status, headers=problem.headers)


def install(app: FastAPI) -> None:
    """Every refusal has this one form."""

    @app.exception_handler(Problem)
    async def _problem(_: Request, exc: Problem) -> JSONResponse:
        return answer(exc)

    @app.exception_handler(Refused)
    async def _refused(_: Request, exc: Refused) -> JSONResponse:
        return answer(of_refusal(exc))

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, exc: RequestValidationError) -> JSONResponse:
        return answer(_of_validation(exc))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, exc: HTTPException) -> JSONResponse:
        if exc.status_code == 400:  # FastAPI could not even try
            return answer(Problem(422, "bad_input", NO_JSON))
        code = CODES.get(exc.status_code, "bad_request")
        headers = dict(exc.headers or {})
        if exc.status_code == 405:  # Starlette names those of one route
            headers["Allow"] = ", ".join(_methods_of(request))
        return answer(Problem(exc.status_code, code, f"{exc.detail}.", headers=headers))

    @app.exception_handler(Exception)
    async def _failed(_: Request, _exc: Exception) -> JSONResponse:
        return answer(failed())

    @app.exception_handler(psycopg.Error)
    async def _of_postgres(_: Request, exc: psycopg.Error) -> JSONResponse:
        problem = of_postgres(exc)
        if problem.status == 500:
            raise exc  # to the log, and then it has failed
        return answer(problem)


def of_postgres(exc: BaseException) -> Problem:
    """What it is to whoever asked, at any door."""
    if ledger.is_away(exc):
        return of_ledger(exc)
    if isinstance(exc, psycopg.DataError):
        return Problem(422, "bad_input", UNSTORABLE)
    return failed()


def failed() -> Problem:
    """It is a fault of ours, or of the product's own rules: whoever asks again hears the same."""
    return Problem(500, "failed", ledger.FAILED)


def of_ledger(exc: BaseException) -> Problem:
    """The ledger does not serve just now."""
    return Problem(503, ledger.code(exc), ledger.why(exc), headers={"Retry-After": "2"})


def _methods_of(request: Request) -> list[str]:
    """What the place can be asked with."""
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _of_validation(exc: RequestValidationError) -> Problem:
    first = exc.errors()[0]
    part, *place = (str(one) for one in first["loc"])
    if part == "path":  # nothing has such a name
        return not_found(place[0])
    if first["type"] == "json_invalid":
        return Problem(422, "bad_input", NO_JSON)
    if not place:
        return Problem(422, "bad_input", NOT_READ if isinstance(exc.body, bytes) else NO_OBJECT)
    named = ".".join(place)[:LONGEST_NAME]
    if first["type"] == "extra_forbidden":
        said = f"There is no field {named}: leave it out."
        return Problem(422, "bad_input", said, field=named)
    said = str(first["msg"]).removeprefix("Value error, ")
    return Problem(422, "bad_input", f"{named}: {said}.", field=named)
