"""What one may ask for. Baton's page on jobs says what each field means; Baton judges them."""

from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict


class Ask(BaseModel):
    """What every request may say. With a `key`, asking again is the same job. `budget` is in USD."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: ClassVar[str]

    project: str
    user: str
    prompt: str | None = None
    version: str | None = None
    key: str | None = None
    busy: Literal["enqueue", "reject", "replace", "interrupt"] = "enqueue"
    priority: int = 0
    run_at: AwareDatetime | None = None
    model: str | None = None
    max_turns: int | None = None
    budget: Decimal | None = None
    previous_session_id: str | None = None
    branch_from: str | None = None
    template: str | None = None
    workspace: str | None = None
    on_lost: Literal["fresh", "ask"] | None = None
    callback_url: str | None = None
    check: str | list[str] | None = None
    check_tries: int | None = None
    on_check_failed: Literal["keep", "rewind", "ask"] | None = None
    race: int | None = None
    race_by: Literal["first", "cheapest", "smallest"] | None = None
    race_models: list[str] | None = None
    race_seconds: int | None = None
    error: str | None = None


class Build(Ask):
    """Build the project; the first one creates it."""

    kind = "build"


class Update(Ask):
    """Change a project that exists."""

    kind = "update"


class Repair(Ask):
    """Mend what an `error` says that came up elsewhere; `version` is the one that it is about."""

    kind = "repair"


class ChatPlan(Ask):
    """Answer a question from the project's latest session; changes no file."""

    kind = "chat_plan"


class Metadata(Ask):
    """Recommendations and documentation for the latest version."""

    kind = "metadata"


class Compaction(Ask):
    """Compact the project's session, whatever its size."""

    kind = "compaction"
