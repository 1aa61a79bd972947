"""What Baton answers. A field that this release does not know is left out."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel


class Asked(BaseModel):
    """The job that was made, or was there under its key."""

    id: UUID
    chain: UUID
    state: str


class Job(BaseModel):
    """A job as it stands. Costs are in USD; tokens are of all its turns. `waits`: why, while it does (a `code`
    and a `sentence`, and `until` if that is known)."""

    id: UUID
    chain: UUID
    kind: str
    project: str
    user: str
    state: str
    attempts: int
    ended: bool
    chain_ended: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error_class: str | None
    error: str | None
    result: dict[str, Any] | None
    session: str | None
    version: str | None
    cost_usd: Decimal | None
    tokens: dict[str, int]
    checks: list[dict[str, Any]] = []
    waits: dict[str, Any] | None = None


class Page(BaseModel):
    """A page of a list; `cursor` asks for the next one, None where there is none."""

    items: list[dict[str, Any]]
    cursor: str | None


class Event(BaseModel):
    """One event of a project; `seq` begins at 1 and has no gap."""

    seq: int
    type: str
    at: datetime
    body: dict[str, Any]
    job: UUID | None = None


class Events(BaseModel):
    """Events in order, and the `offset` from which to read on."""

    items: list[Event]
    offset: str
    up_to_date: bool


class Ticket(BaseModel):
    """What a browser changes for its cookie, within five minutes."""

    ticket: str
    expires_at: datetime
