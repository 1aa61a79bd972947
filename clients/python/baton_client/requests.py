"""What one may ask for. Baton's page on jobs says what each field means; Baton judges them."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal, Self, cast

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict

from baton_client.refused import Refused

FAR = 10**15  # beyond the range of every number that a request has


def _whole(given: object) -> object:
    if given is True or given is False:  # Python counts with them
        raise ValueError("must be a whole number")
    return given


Whole = Annotated[int, BeforeValidator(_whole)]


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
    priority: Whole = 0
    run_at: AwareDatetime | None = None
    model: str | None = None
    max_turns: Whole | None = None
    budget: Decimal | None = None
    previous_session_id: str | None = None
    branch_from: str | None = None
    template: str | None = None
    workspace: str | None = None
    on_lost: Literal["fresh", "ask"] | None = None
    callback_url: str | None = None
    check: str | list[str] | None = None
    check_tries: Whole | None = None
    on_check_failed: Literal["keep", "rewind", "ask"] | None = None
    race: Whole | None = None
    race_by: Literal["first", "cheapest", "smallest"] | None = None
    race_models: list[str] | None = None
    race_seconds: Whole | None = None
    error: str | None = None

    def readable(self) -> Self:
        """As Baton can judge it. Raises Refused for text that cannot be sent; a number beyond all
        ranges comes nearer, so that Baton can say which range it is."""
        for name, value in self:
            texts = cast(list[object], value) if isinstance(value, list) else [value]
            if any(isinstance(one, str) and ("\x00" in one or _torn(one)) for one in texts):
                sentence = f"{name} has text that is not UTF-8 or holds a NUL: take it out."
                raise Refused("bad_input", sentence, name)
        nearer = {
            name: type(value)(FAR if value > 0 else -FAR)
            for name, value in self
            if isinstance(value, int | Decimal) and not -FAR <= value <= FAR
        }
        return self.model_copy(update=nearer)


def _torn(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


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
