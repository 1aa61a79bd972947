"""Each call of the HTTP API as data: what is sent, and how the answer is read. It does no I/O, so
the plain and the async client are the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
from pydantic import BaseModel, TypeAdapter

from baton_client.refused import CODES, Failed, Refused
from baton_client.requests import Ask
from baton_client.results import Asked, Event, Events, Job, Page, Ticket

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
List = Literal["chain", "chat", "jobs"]
AGAIN = (502, 503, 504)  # asked again: the gateway, or Postgres, is away for a moment
EVENTS = TypeAdapter(list[Event])
OBJECT = TypeAdapter(dict[str, Any])


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request. `safe`: sent twice it does what it does once."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    json: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    safe: bool = True


def of_model(kind: type[M]) -> Callable[[httpx.Response], M]:
    return lambda answer: kind.model_validate_json(answer.content)


def enqueue(ask: Ask) -> Call[Asked]:
    """A request without a key is given one: sent again it is the same job."""
    ask = ask.readable()
    body = ask.model_dump(mode="json", exclude_none=True, exclude={"key"})
    return Call(
        "POST",
        "/v1/jobs",
        of_model(Asked),
        json={**body, "kind": ask.kind},
        headers=_key(ask.key),
    )


def _key(key: str | None) -> dict[str, str]:
    if key is None:
        return {"Idempotency-Key": str(uuid4())}
    if key != key.strip(" \t") or any(one < " " or one == "\x7f" for one in key):
        raise Refused(
            "bad_input",
            "Over HTTP a key has no line breaks and no spaces around it: take them out.",
            "key",
        )
    return {"Idempotency-Key": key}


def job(job_id: UUID, wait: float = 0) -> Call[Job]:
    return Call("GET", f"/v1/jobs/{job_id}", of_model(Job), {"wait": wait})


def cancel(job_id: UUID) -> Call[Job]:
    return Call("POST", f"/v1/jobs/{job_id}/cancel", of_model(Job))


def retry(job_id: UUID, fresh: bool, key: str | None) -> Call[Asked]:
    path = f"/v1/jobs/{job_id}/retry"
    return Call("POST", path, of_model(Asked), json={"fresh": fresh}, headers=_key(key))


def answer(job_id: UUID, choice: str) -> Call[Job]:
    path = f"/v1/jobs/{job_id}/answer"
    return Call("POST", path, of_model(Job), json={"choice": choice}, safe=False)


def project(name: str) -> Call[dict[str, Any]]:
    return Call("GET", _project(name), lambda answer: OBJECT.validate_json(answer.content))


def page(name: str, what: List, cursor: str | None, limit: int) -> Call[Page]:
    params = {"limit": limit} | ({"cursor": cursor} if cursor else {})
    return Call("GET", f"{_project(name)}/{what}", of_model(Page), params)


def diff(name: str, version: str) -> Call[bytes]:
    path = f"{_project(name)}/versions/{_part(version)}/diff"
    return Call("GET", path, lambda answer: answer.content)


def events(name: str, offset: str, wait: bool) -> Call[Events]:
    params = {"offset": offset} | ({"live": "long-poll"} if wait else {})
    return Call("GET", f"{_project(name)}/events", _events, params)


def ticket(name: str, user: str) -> Call[Ticket]:
    asked = {"project": name, "user": user}
    return Call("POST", "/v1/tickets", of_model(Ticket), json=asked)


def _project(name: str) -> str:
    return f"/v1/projects/{_part(name)}"


def _part(name: str) -> str:
    return quote(name, safe="", errors="replace")


def _events(answer: httpx.Response) -> Events:
    found = EVENTS.validate_json(answer.content) if answer.content else []
    return Events(
        items=found,
        offset=answer.headers["stream-next-offset"],
        up_to_date=answer.headers.get("stream-up-to-date") == "true",
    )


def read(call: Call[T], answer: httpx.Response) -> T:
    """What the answer says. Raises Refused or Failed."""
    try:
        if answer.is_success:
            return call.read(answer)
        told = answer.json()
        code, sentence, about = str(told["code"]), str(told["detail"]), told.get("field")
        again_at = datetime.fromisoformat(told["again_at"]) if "again_at" in told else None
    except (ValueError, KeyError, TypeError):
        raise Failed(
            answer.status_code,
            "no_answer",
            f"The gateway answered {answer.status_code}, and not as Baton does: look at what is between.",
        ) from None
    if code in CODES.values() and call.method != "GET":  # who only looks asks for nothing
        raise Refused(code, sentence, about, again_at)
    raise Failed(answer.status_code, code, sentence)
