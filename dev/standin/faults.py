"""Faults on cue: what goes wrong, for which requests, and how it looks on the wire.

Refused connections are not among them: stop the server for those.
"""

import re
import threading
from dataclasses import dataclass, field, fields
from typing import Any

from dev.standin.messages import JSON

# kind: (HTTP status, error type, message)
ANSWERS: dict[str, tuple[int, str, str]] = {
    "too_long": (
        400,
        "invalid_request_error",
        "prompt is too long: {tokens} tokens > {limit} maximum",
    ),
    "400": (400, "invalid_request_error", "messages: the request is not valid"),
    "credit": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. "
        "Please go to Plans & Billing to upgrade or purchase credits.",
    ),
    "401": (401, "authentication_error", "invalid x-api-key"),
    "403": (
        403,
        "permission_error",
        "Your API key does not have permission to use this resource.",
    ),
    "404": (404, "not_found_error", "model: {model}"),
    "413": (413, "request_too_large", "Request exceeds the maximum size"),
    "429": (429, "rate_limit_error", "This request would exceed your account's rate limit."),
    "500": (500, "api_error", "Internal server error"),
    "529": (529, "overloaded_error", "Overloaded"),
}
# kind: what happens on the wire
BREAKS = {
    "hang": "the request is never answered",
    "reset": "the connection is reset before an answer",
    "cut": "the connection is lost in the middle of the stream",
    "unfinished": "the stream ends in order, but in the middle of the message",
    "error_event": "the stream breaks off with an error event",
    "garbage": "200, and a body that is no message",
    "slow": "the answer comes in small pieces, `pace` seconds apart",
}
IN_MIDSTREAM = ("cut", "unfinished", "error_event", "slow")  # the model has worked by then
KINDS = (*ANSWERS, *BREAKS)
ON = ("any", "turn", "compaction")


class BadFault(ValueError):
    """A fault that cannot be; the message says what to give instead."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, for the next `times` requests that fit (-1: for all).

    It fits requests `on` turns, compactions or any, whose last prompt matches the regex
    `when` and whose model contains `model`, after the first `after` of these.
    `retry_after` (seconds) goes into the header; `retry` into `x-should-retry`.
    `message` replaces the text of the error; `pace` is in seconds, for slow.
    """

    kind: str
    times: int = 1
    when: str | None = None
    after: int = 0
    model: str | None = None
    on: str = "any"
    retry_after: float | None = None
    retry: bool | None = None
    message: str | None = None
    pace: float = 0.2

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadFault(f"There is no fault {self.kind!r}: take one of {', '.join(KINDS)}.")
        if self.on not in ON:
            raise BadFault(f"A fault is on one of {', '.join(ON)}, not on {self.on!r}.")
        try:
            re.compile(self.when or "")
        except re.error as broken:
            raise BadFault(f"`when` is not a regular expression: {broken}.") from broken

    def fits(self, *, kind: str, prompt: str, model: str) -> bool:
        return (
            self.on in ("any", kind)
            and (self.when is None or bool(re.search(self.when, prompt, re.IGNORECASE)))
            and (self.model is None or self.model in model)
        )

    def answer(self, **places: object) -> tuple[int, JSON, dict[str, str]]:
        """Status, body and headers of a fault that is an HTTP answer."""
        status, error, message = ANSWERS[self.kind]
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            headers["retry-after"] = f"{self.retry_after:g}"
        if self.retry is not None:
            headers["x-should-retry"] = str(self.retry).lower()
        return status, error_body(error, self.message or message.format(**places)), headers


def fault(told: JSON) -> Fault:
    """A fault from its JSON form."""
    known = {f.name for f in fields(Fault)}
    if strange := sorted(told.keys() - known):
        raise BadFault(f"A fault has no {strange[0]}: it knows {', '.join(sorted(known))}.")
    if "kind" not in told:
        raise BadFault(f"Say which kind of fault: one of {', '.join(KINDS)}.")
    return Fault(**(told | {"kind": str(told["kind"])}))  # pyright: ignore[reportArgumentType] -- as JSON has it


def error_body(error: str, message: str, request_id: str | None = None) -> JSON:
    """An error in the API's shape."""
    body: dict[str, Any] = {"type": "error", "error": {"type": error, "message": message}}
    return body | ({"request_id": request_id} if request_id else {})


@dataclass(slots=True)
class _Set:
    fault: Fault
    left: int
    skip: int


@dataclass(slots=True)
class Faults:
    """The faults that are set, the oldest first. Safe to use from several threads."""

    _set: list[_Set] = field(default_factory=list[_Set])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._set.append(_Set(fault, fault.times, fault.after))

    def clear(self) -> None:
        with self._lock:
            self._set.clear()

    def left(self) -> list[Fault]:
        """The faults still to come."""
        with self._lock:
            return [s.fault for s in self._set if s.left]

    def take(self, *, kind: str, prompt: str, model: str) -> Fault | None:
        """The fault for this request, used up by one; None if all is well."""
        with self._lock:
            for cue in self._set:
                if not cue.left or not cue.fault.fits(kind=kind, prompt=prompt, model=model):
                    continue
                if cue.skip:
                    cue.skip -= 1
                    continue
                cue.left -= 1 if cue.left > 0 else 0
                return cue.fault
        return None
