"""Events of the realtime protocol: which one a text is, and those that the gateway itself says."""

import json
import re
from typing import Any, TypeGuard
from uuid import uuid4

from worker.text.storable import written

Event = dict[str, Any]
# Audio comes many times a second and is passed on unread. `type` stands first or after the event_id;
# wherever else it stands, the event is read like any other.
HEAD = r'\{\s*(?:"event_id"\s*:\s*"[^"\\]*"\s*,\s*)?"type"\s*:\s*"%s"'
APPEND = re.compile(HEAD % r"input_audio_buffer\.append")
DELTA = re.compile(HEAD % r"(response\.[a-z_.]*\.delta)")
ITEM = re.compile(r'"item_id"\s*:\s*"([^"\\]+)"')
OURS = "baton_"  # how an event_id of ours begins
FATAL = frozenset(  # codes after which nothing is tried again
    {
        "account_deactivated",
        "billing_hard_limit_reached",
        "insufficient_quota",
        "invalid_api_key",
        "model_not_found",
    }
)


def is_object(value: object) -> TypeGuard[Event]:
    """Whether it is a JSON object."""
    return isinstance(value, dict)


def is_audio(text: str) -> bool:
    """Whether a client's event is audio, and nothing else to anybody: JSON allows a second "type", also
    one that is written with an escape, and the last one counts."""
    return APPEND.match(text) is not None and "\\" not in text and text.count('"type"') == 1


def delta(text: str) -> str | None:
    """The type of a provider's event that need not be read; None: read it."""
    found = DELTA.match(text)
    return found[1] if found else None


def read(text: str) -> Event | None:
    """The event; None: it is none."""
    event = object_of(text)
    return event if event is not None and isinstance(event.get("type"), str) else None


def object_of(text: str) -> Event | None:
    """The JSON object; None: it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if is_object(found) else None


def part(event: Event, *names: str) -> Event:
    """An object within; an empty one where there is none."""
    for name in names:
        inner = event.get(name)
        event = inner if is_object(inner) else {}
    return event


def said(event: Event, name: str) -> str:
    """A text within; an empty one where there is none."""
    value = event.get(name)
    return value if isinstance(value, str) else ""


def item_of(text: str) -> str:
    """The item that a delta is of, found without reading the audio that it holds."""
    found = ITEM.search(text[:300]) or ITEM.search(text[-300:])
    return found[1] if found else ""


def tokens(done: Event) -> int:
    """What a response used, by its `response.done`."""
    usage = part(done, "response", "usage")
    both = [usage.get(name) for name in ("input_tokens", "output_tokens")]
    total = usage.get("total_tokens", sum(one for one in both if isinstance(one, int)))
    return total if isinstance(total, int) and total > 0 else 0


def failure(done: Event) -> str:
    """The code with which a response failed; empty: it did not."""
    return said(part(done, "response", "status_details", "error"), "code")


def text_of(event: Event) -> str:
    """As it goes over the wire; halves of characters, which are no UTF-8, are escaped."""
    return written(event)


def new_id() -> str:
    """An id for an event of ours, by which the provider's answer is known."""
    return f"{OURS}{uuid4().hex[:20]}"


def without_ours(event: Event) -> Event:
    """An `error` as its client is told it: an event_id that is ours means nothing there."""
    inner = part(event, "error")
    if not said(inner, "event_id").startswith(OURS):
        return event
    return event | {"error": inner | {"event_id": None}}


def error(
    code: str,
    message: str,
    *,
    param: str | None = None,
    about: str | None = None,
    kind: str = "invalid_request_error",
) -> Event:
    """An `error` as the provider words one; `about` is the event_id of what was wrong."""
    inner = {"type": kind, "code": code, "message": message, "param": param, "event_id": about}
    return {"type": "error", "event_id": new_id(), "error": inner}


def warning(code: str, message: str, *, param: str, about: str | None) -> Event:
    """Something was mended, and goes on."""
    return {
        "type": "baton.warning",
        "event_id": new_id(),
        "code": code,
        "message": message,
        "param": param,
        "about": about,
    }


def cancelled(response: str) -> list[Event]:
    """What tells a client that its response was cut off with the provider: a client of ours hears
    the first, any other client the second, without which it would wait for ever."""
    body: Event = {
        "id": response,
        "object": "realtime.response",
        "status": "cancelled",
        "status_details": {"type": "cancelled", "reason": "provider_lost"},
        "output": [],
        "usage": None,
    }
    return [
        {"type": kind, "event_id": new_id(), "response_id": response, "response": body}
        for kind in ("response.cancelled", "response.done")
    ]
