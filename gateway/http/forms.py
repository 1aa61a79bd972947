"""What requests may say and what answers say: the models that the OpenAPI document is made of."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from worker.requests import Lines, Whole
from worker.text.storable import plain

KINDS = ("build", "update", "repair", "chat_plan", "metadata", "compaction")


def _kind(value: str) -> str:
    plain = value.replace("-", "_")
    if plain not in KINDS:
        raise ValueError(f"must be one of {', '.join(KINDS)}")
    return plain


def _text(value: str) -> str:
    if plain(value) != value:
        raise ValueError("must be UTF-8 without a NUL")
    return value


Text = Annotated[str, AfterValidator(_text)]


class Ask(BaseModel):
    """A request for a job, with the fields of `worker.client`."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, AfterValidator(_kind)]
    project: str
    user: str
    prompt: str | None = None
    version: str | None = None
    busy: Literal["enqueue", "reject", "replace", "interrupt"] = "enqueue"
    priority: Whole = 0
    run_at: AwareDatetime | None = None
    model: str | None = None
    max_turns: Whole | None = None
    budget: Decimal | None = Field(None, allow_inf_nan=False)
    previous_session_id: str | None = None
    branch_from: str | None = None
    template: str | None = None
    workspace: str | None = None
    on_lost: Literal["fresh", "ask"] | None = None
    callback_url: str | None = None
    check: Lines | None = None
    check_tries: Whole | None = None
    on_check_failed: Literal["keep", "rewind", "ask"] | None = None
    race: Whole | None = None
    race_by: Literal["first", "cheapest", "smallest"] | None = None
    race_models: list[str] | None = None
    race_seconds: Whole | None = None
    error: str | None = None


class Asked(BaseModel):
    """The job that was made, or was there."""

    id: UUID
    chain: UUID
    state: str


class Choice(BaseModel):
    """What to do about a lost session, or about a version that fails its check."""

    model_config = ConfigDict(extra="forbid")

    choice: Literal["retry", "start_new", "keep", "rewind", "repair"]


class Retry(BaseModel):
    """How to ask once more."""

    model_config = ConfigDict(extra="forbid")

    fresh: bool = False


class TicketAsk(BaseModel):
    """Whom a browser is to speak for."""

    model_config = ConfigDict(extra="forbid")

    project: Text
    user: Text


class Ticket(BaseModel):
    """What the page changes for its cookie, within five minutes."""

    ticket: str
    expires_at: datetime


class SessionAsk(BaseModel):
    """The ticket that a page was given."""

    model_config = ConfigDict(extra="forbid")

    ticket: str = Field(max_length=4000)


class Session(BaseModel):
    """Whom the cookie speaks for, and until when."""

    project: str
    user: str
    expires_at: datetime


class Page(BaseModel):
    """A page of a list; `cursor` asks for the next one, null where there is none."""

    items: list[dict[str, Any]]
    cursor: str | None
