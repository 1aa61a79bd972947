"""What may be asked for: a class for each kind of request, and how `baton_enqueue` is given one.

What producers import of it is in `worker.client`.
"""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, cast
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic import BaseModel, BeforeValidator, ConfigDict

from config.settings import asking
from worker.failures.refused import BadInput
from worker.workspace import places

# How baton_enqueue is given the fields of a request: by name, or among its options.
NAMED = (
    *("project", "user", "prompt", "version", "key", "busy", "priority", "run_at"),
    *("previous_session_id", "error"),
)
OPTIONS = (
    *("model", "max_turns", "budget", "workspace", "on_lost", "branch_from", "template"),
    *("callback_url", "check", "check_tries", "on_check_failed"),
    *("race", "race_by", "race_models", "race_seconds"),
)
FAR = 10**15  # beyond the range of every number that a request has


def _lines(given: object) -> object:
    """One sentence for what is no check, whichever of its two forms it may have meant."""
    several = cast("list[object]", given) if isinstance(given, list) else [given]
    if given is not None and not all(isinstance(one, str) for one in several):
        raise ValueError("must be a shell line, or a list of them")
    return several if isinstance(given, list) else given


def _whole(given: object) -> object:
    if given is True or given is False:  # Python counts with them
        raise ValueError("must be a whole number")
    return given


Whole = Annotated[int, BeforeValidator(_whole)]
Lines = Annotated[str | list[str], BeforeValidator(_lines)]


class Request(BaseModel):
    """What every request may say. `key` makes it safe to send again: same key and body,
    same job. `busy`: what to do when the project has work already. `budget` is in USD."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)
    kind: ClassVar[str]

    project: str
    user: str
    prompt: str | None = None
    version: str | None = None
    key: str | None = None
    busy: Literal["enqueue", "reject", "replace", "interrupt"] = "enqueue"
    priority: Whole = 0
    run_at: datetime | None = None
    model: str | None = None
    max_turns: Whole | None = None
    budget: Decimal | None = None
    previous_session_id: str | None = None
    branch_from: str | None = None  # a session: work beside the main line, from there
    template: str | None = None  # a new project's first session is a fork of this one's
    workspace: str | None = None
    on_lost: Literal["fresh", "ask"] | None = None
    callback_url: str | None = None  # is told when the chain has ended (docs/webhooks.md)
    check: Lines | None = None  # shell lines that a build must pass; []: none at all
    check_tries: Whole | None = None
    on_check_failed: Literal["keep", "rewind", "ask"] | None = None
    race: Whole | None = None  # so many do it side by side; one that passes counts
    race_by: Literal["first", "cheapest", "smallest"] | None = None
    race_models: list[str] | None = None
    race_seconds: Whole | None = None
    error: str | None = None  # of a repair


class Build(Request):
    """Build the project; the first one creates it."""

    kind = "build"


class Update(Request):
    """Change a project that exists."""

    kind = "update"


class Repair(Request):
    """Mend what an `error` says that came up elsewhere: a deploy, production, a pipeline. `version`
    is the one that it is about."""

    kind = "repair"


class ChatPlan(Request):
    """Answer a question from the project's latest session; changes no file."""

    kind = "chat_plan"


class Metadata(Request):
    """Recommendations and documentation for the latest version."""

    kind = "metadata"


class Compaction(Request):
    """Compact the project's session, whatever its size."""

    kind = "compaction"


def readable(ask: Request) -> Request:
    """The request as Postgres can judge it. Raises BadInput for what Postgres cannot hold, or
    would take for something else; a number beyond all ranges comes nearer, so that Postgres can
    say which range it is."""
    given = ask.model_dump(exclude_unset=True)  # a default is as it has to be
    for name, value in given.items():
        texts = cast(list[object], value) if isinstance(value, list) else [value]
        if any(isinstance(one, str) and ("\x00" in one or _torn(one)) for one in texts):
            raise BadInput(
                "The request has text that is not UTF-8 or holds a NUL: take it out.",
                field=name,
            )
    if ask.run_at is not None and ask.run_at.tzinfo is None:
        raise BadInput("run_at has no time zone: give it one, such as UTC.", field="run_at")
    numbers = {
        name: type(value)(FAR if value > 0 else -FAR)
        for name, value in given.items()
        if isinstance(value, int | Decimal) and not -FAR <= value <= FAR
    }
    return ask.model_copy(update={**numbers, "workspace": places.resolved(ask.workspace)})


def params(ask: Request, job_id: UUID | None) -> dict[str, Any]:
    """The request as `baton_enqueue` takes it."""
    named = ((name, getattr(ask, name)) for name in OPTIONS)
    options = {name: value for name, value in named if value is not None}
    if "budget" in options:
        options["budget"] = float(options["budget"])
    here = asking()
    return {
        **{name: getattr(ask, name) for name in NAMED},
        "kind": ask.kind,
        "options": Jsonb(options),
        "id": job_id,
        "prompt_limit": here.prompt_limit if "prompt_limit" in here.model_fields_set else None,
    }


def _torn(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False
