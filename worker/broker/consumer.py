"""What a worker's main process makes of a message before a child of the pool has it.

Consumer   what is no task of ours is refused (worker/broker/refused_messages.py). Celery would drop it, and
           write its body, prompts included, into the log. Nor does it mingle or gossip
Request    of a message that is taken, events, Flower and `inspect` show ids alone. One that asks
           for messages after it (link, chain, chord) is refused: they would go out with the
           worker's own rights, to any queue and to every worker
"""

# ruff: noqa: ARG002 - arguments are named as Celery names them

import re
from typing import Any, cast

import structlog
from celery.app.task import Task as CelerysTask
from celery.exceptions import InvalidTaskError
from celery.utils.saferepr import saferepr
from celery.worker.consumer import Consumer as CelerysConsumer
from celery.worker.request import Request as CelerysRequest
from kombu.exceptions import ContentDisallowed

from worker.broker.refused_messages import keep_later

log = structlog.get_logger()

HIDDEN = "…"
SHOWN = ("job_id", "previous_session_id", "project_id", "user_id", "version_id", "key")
PLACES_SHOWN = 2  # of those that come by place: the project's and the user's
# Of what a message says about itself, the pool hears this and no more.
HEADERS = ("lang", "task", "id", "root_id", "parent_id", "origin", "eta", "expires")
AFTER = ("callbacks", "errbacks", "chain", "chord")
ID = re.compile(r"[\w.:@+=|/-]{1,200}", re.ASCII)

UNREADABLE = (
    "The message is no JSON in UTF-8: send it as Celery does with task_serializer=json."
)
NO_TASK = "The message names no task: send it with Celery, or as its protocol 2 says."
MORE = (
    "The message asks for others after it (link, link_error, chain or chord), which Baton does not"
    " send: ask for each by itself."
)
ODD = (
    "The message's arguments, eta or expires are not as the task or Celery's protocol has them:"
    " look at what sends it."
)


class AsksForMore(InvalidTaskError):
    """It would have us send messages of its making."""


class Task(CelerysTask[Any, Any]):
    """The base of our tasks."""

    abstract = True
    Request = "worker.broker.consumer:Request"


class Request(CelerysRequest):
    """A message that is taken. What it holds, prompts included, is the pool's to see."""

    def __init__(self, message: Any, *, headers: Any = None, **more: Any) -> None:
        said = message.headers if headers is None else headers
        if any(said.get(name) for name in AFTER):
            raise AsksForMore
        kept = {name: said[name] for name in HEADERS if name in said}
        super().__init__(message, headers=kept, **more)
        given, named, after = cast(Any, self)._payload
        if not isinstance(after, dict | None) or set(cast(Any, after or ())) - set(AFTER):
            raise InvalidTaskError("What is to come after it is not as the protocol says.")
        if any(cast(dict[str, Any], after or {}).values()):
            raise AsksForMore
        if not isinstance(given, list | tuple) or not isinstance(named, dict):
            raise InvalidTaskError("The arguments are no list, or no mapping.")
        _check_taken(self.task, cast(Any, given), cast(Any, named))
        self._argsrepr = saferepr(_places(cast(Any, given)))
        self._kwargsrepr = saferepr(_names(cast(Any, named)))
        self._request_dict |= {"argsrepr": self._argsrepr, "kwargsrepr": self._kwargsrepr}

    def info(self, safe: bool = True) -> Any:
        """What `inspect active` and Flower's page of a worker show."""
        return super().info(safe=True)


def _check_taken(task: Any, given: list[Any], named: dict[Any, Any]) -> None:
    """Raises InvalidTaskError for what the task cannot be called with. Else the call would fail with
    a traceback in the log, and nothing for the producer to find."""
    wrong = InvalidTaskError("The arguments are not the task's.")
    if "self" in named:  # as Celery itself calls what it gives a task
        raise wrong
    try:
        task.__header__(*given, **named)
    except TypeError:
        raise wrong from None


def _places(given: list[Any]) -> list[Any]:
    return [_shown(each) if n < PLACES_SHOWN else HIDDEN for n, each in enumerate(given)]


def _names(named: dict[Any, Any]) -> dict[str, Any]:
    return {
        _shown(name): _shown(each) if name in SHOWN else HIDDEN for name, each in named.items()
    }


def _shown(value: Any) -> Any:
    """An id; anything else may be somebody's text."""
    if value is None or (isinstance(value, str) and ID.fullmatch(value)):
        return value
    return HIDDEN


class Consumer(CelerysConsumer):
    """Celery's own, but for what it does with messages that are nothing for us. It asks no other worker
    what was revoked, since the ledger says it: while it waits for their answers it takes no work, and
    each message of upkeep makes it wait a second more."""

    def __init__(
        self, *args: Any, worker_options: dict[str, Any] | None = None, **more: Any
    ) -> None:
        alone = {"without_mingle": True, "without_gossip": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **alone}, **more)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._refuse(message, "no_task", NO_TASK)

    def on_unknown_task(self, body: Any, message: Any, exc: Any) -> None:
        _, name = _who(message)
        told = ", ".join(sorted(self.app.tasks))
        sentence = f"There is no task {str(name)[:60]}: there are {told}."
        self._refuse(message, "unknown_task", sentence)

    def on_invalid_task(self, body: Any, message: Any, exc: Any) -> None:
        if isinstance(exc, ContentDisallowed):
            self._refuse(message, "unreadable", UNREADABLE)
        else:
            more = isinstance(exc, AsksForMore)
            self._refuse(message, "bad_input", MORE if more else ODD)

    def on_decode_error(self, message: Any, exc: Any) -> None:
        self._refuse(message, "unreadable", UNREADABLE)

    def _refuse(self, message: Any, code: str, sentence: str) -> None:
        task_id, name = _who(message)
        found = keep_later(task_id, name, code, sentence)
        ours = cast(Any, self)
        message.reject_log_error(log, ours.connection_errors)
        if events := ours.event_dispatcher:  # so that Flower shows it
            events.send("task-received", uuid=found, name=str(name), args="", kwargs="")
            events.send("task-failed", uuid=found, exception=f"RefusedMessage({sentence!r})")


def leave_out_celerys(app: Any) -> None:
    """Tasks that Celery brings along (group, chord, map, …) run or send what their message says."""
    for name in [one for one in app.tasks if one.startswith("celery.")]:
        app.tasks.unregister(name)


def _who(message: Any) -> tuple[Any, Any]:
    """The task's id and name, where the message has them."""
    headers = cast(Any, message.headers if isinstance(message.headers, dict) else {})
    named = headers if "task" in headers else _protocol_1(message)
    properties = cast(Any, message.properties or {})
    found = named.get("id") or properties.get("correlation_id")
    return found or properties.get("delivery_tag"), named.get("task")


def _protocol_1(message: Any) -> dict[str, Any]:
    """The body of a message of Celery 3, which holds what later ones have in their headers."""
    try:
        body = message.payload
    except Exception:  # whatever decodes it; then it has nothing to tell
        return {}
    return cast(dict[str, Any], body) if isinstance(body, dict) else {}
