"""The shape of a session's configuration (Realtime GA): what is checked before it is kept or sent again.

What the provider has accepted comes back with more than may be sent: ids, times, secrets. Only keys that
are named here are kept. Ranges of numbers are the provider's to judge; it moves them.
"""

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from gateway.voice.events import Event, is_object

OFF = ("turn_detection", "noise_reduction", "transcription")  # null there means: none
OBJECT = ("model_type", "model_attributes_type", "dict_type")  # pydantic's words for that
THEIRS = ("parameters", "variables")  # what the client's own words mean is not ours to say


class Part(BaseModel):
    """Keys that are not named are left out."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Format(Part):
    """Of audio."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"]
    rate: int | None = None


class Transcription(Part):
    """Of what is heard."""

    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    delay: str | None = None


class NoiseReduction(Part):
    """Of what is heard."""

    type: Literal["near_field", "far_field"]


class ServerVad(Part):
    """Turns by silence."""

    type: Literal["server_vad"]
    threshold: float | None = None
    prefix_padding_ms: int | None = None
    silence_duration_ms: int | None = None
    idle_timeout_ms: int | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class SemanticVad(Part):
    """Turns by meaning."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] | None = None
    create_response: bool | None = None
    interrupt_response: bool | None = None


class Input(Part):
    """What is heard."""

    format: Format | None = None
    transcription: Transcription | None = None
    noise_reduction: NoiseReduction | None = None
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = (
        None
    )


class OwnVoice(Part):
    """A voice of one's own."""

    id: str


class Output(Part):
    """What is said."""

    format: Format | None = None
    voice: str | OwnVoice | None = None
    speed: float | None = None


class Audio(Part):
    """Both ways."""

    input: Input | None = None
    output: Output | None = None


class Function(Part):
    """A tool that the client does."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: Any = None


class Mcp(Part):
    """A tool that the provider asks a server for. Its credentials are not kept: they are not told."""

    type: Literal["mcp"]
    server_label: str
    server_url: str | None = None
    connector_id: str | None = None
    server_description: str | None = None
    allowed_tools: Any = None
    require_approval: Any = None


class Prompt(Part):
    """One that is stored at the provider."""

    id: str
    version: str | None = None
    variables: dict[str, Any] | None = None


class Reasoning(Part):
    """How much of it."""

    effort: str | None = None


class Session(Part):
    """All of it."""

    type: Literal["realtime", "transcription"]
    output_modalities: Annotated[
        list[Literal["text", "audio"]], Field(min_length=1, max_length=1)
    ] | None = None  # fmt: skip
    instructions: str | None = None
    audio: Audio | None = None
    include: list[str] | None = None
    max_output_tokens: int | Literal["inf"] | None = None
    parallel_tool_calls: bool | None = None
    prompt: Prompt | None = None
    reasoning: Reasoning | None = None
    tool_choice: str | dict[str, Any] | None = None
    tools: list[Annotated[Function | Mcp, Field(discriminator="type")]] | None = None
    tracing: Literal["auto"] | dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | dict[str, Any] | None = None


class Misshapen(Exception):
    """It is no configuration: a code, a sentence and the parameter, as the provider words them."""

    def __init__(self, code: str, message: str, param: str) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def checked(session: object) -> Event:
    """The configuration with the keys that may be sent again. Raises Misshapen."""
    try:
        found = Session.model_validate(session)
    except ValidationError as exc:
        raise _wrong(exc.errors()[0]) from None
    plain = found.model_dump(exclude_unset=True)
    return cast(Event, _without_nulls(plain))


def update(session: object) -> Event:
    """The session.update that brings this configuration about. Raises Misshapen."""
    return {"type": "session.update", "session": checked(session)}


def stored(data: object) -> Event | None:
    """The session.update of what was kept; None: there is none. Raises Misshapen for what is no
    configuration, an empty one among them."""
    if data is None:
        return None
    return update(data.get("session") if is_object(data) else data)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(one) for one in cast("list[Any]", value)]
    if not is_object(value):
        return value
    return {
        name: one if name in THEIRS else _without_nulls(one)
        for name, one in value.items()
        if one is not None or name in OFF
    }


def _wrong(error: ErrorDetails) -> Misshapen:
    place = [one for one in error["loc"] if not _is_branch(one)]
    param = "session" + "".join(
        f"[{one}]" if isinstance(one, int) else f".{one}" for one in place
    )
    if error["type"].startswith("union_tag"):
        param += ".type"
    if error["type"] in ("missing", "union_tag_not_found") or error["input"] is None:
        return Misshapen(
            "missing_required_parameter", f"Missing required parameter: '{param}'.", param
        )
    if error["type"] in ("literal_error", "union_tag_invalid"):
        wanted = error.get("ctx", {})
        names = wanted.get("expected") or wanted.get("expected_tags")
        return Misshapen(
            "invalid_value",
            f"Invalid value of '{param}'. Supported values are: {names}.",
            param,
        )
    if error["type"] in ("too_long", "too_short"):
        return Misshapen(
            "invalid_value", f"Invalid value of '{param}': say one of them.", param
        )
    told = (
        "an object"
        if error["type"] in OBJECT
        else error["msg"].removeprefix("Input should be ")
    )
    return Misshapen("invalid_type", f"Invalid value of '{param}': it should be {told}.", param)


def _is_branch(place: int | str) -> bool:
    """Whether pydantic names a branch of a union here, and no key."""
    return isinstance(place, str) and (
        place in {"function", "mcp", "server_vad", "semantic_vad", "OwnVoice", "str", "int"}
        or "[" in place
    )
