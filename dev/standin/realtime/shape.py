"""What a configuration may be, as the provider judges it: unknown and missing keys are refused."""

import time
from typing import Any, cast
from uuid import uuid4

JSON = dict[str, Any]
FORMAT = {"type": str, "rate": int}
VAD = {
    "type": str,
    "threshold": (int, float),
    "prefix_padding_ms": int,
    "silence_duration_ms": int,
    "idle_timeout_ms": int,
    "create_response": bool,
    "interrupt_response": bool,
    "eagerness": str,
}
SESSION: JSON = {
    "type": str,
    "output_modalities": list,
    "instructions": str,
    "audio": {
        "input": {
            "format": FORMAT,
            "transcription": {"model": str, "language": str, "prompt": str},
            "noise_reduction": {"type": str},
            "turn_detection": VAD,
        },
        "output": {"format": FORMAT, "voice": (str, dict), "speed": (int, float)},
    },
    "include": list,
    "max_output_tokens": (int, str),
    "model": str,
    "parallel_tool_calls": bool,
    "prompt": dict,
    "reasoning": dict,
    "tool_choice": (str, dict),
    "tools": list,
    "tracing": (str, dict),
    "truncation": (str, dict),
}
PCM: JSON = {"type": "audio/pcm", "rate": 24000}
TURNS: JSON = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 500,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
FORMATS = ("audio/pcm", "audio/pcmu", "audio/pcma")
VOICES = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "sage",
    "shimmer",
    "verse",
    "marin",
    "cedar",
)


class Wrong(Exception):
    """A code, a message and the parameter."""

    def __init__(self, code: str, message: str, param: str) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


def check(session: object) -> JSON:
    """The configuration, if it is one. Raises Wrong."""
    if not isinstance(session, dict):
        raise Wrong(
            "missing_required_parameter", "Missing required parameter: 'session'.", "session"
        )
    told = cast(JSON, session)
    if "type" not in told:
        raise Wrong("missing_required_parameter",
                    "Missing required parameter: 'session.type'.", "session.type")  # fmt: skip
    _check(told, SESSION, "session")
    modalities = cast("list[Any]", told.get("output_modalities") or ["audio"])
    if modalities not in (["audio"], ["text"]):
        raise _value("session.output_modalities", modalities, "'text' and 'audio', one of them")
    return told


def _check(told: JSON, shape: JSON, place: str) -> None:
    for name, value in told.items():
        here = f"{place}.{name}"
        if name not in shape:
            raise Wrong("unknown_parameter", f"Unknown parameter: '{here}'.", here)
        wanted = shape[name]
        if value is None:
            continue
        if isinstance(wanted, dict):
            if not isinstance(value, dict):
                raise Wrong(
                    "invalid_type", f"Invalid type for '{here}': expected an object.", here
                )
            _check(cast(JSON, value), cast(JSON, wanted), here)
            if wanted is FORMAT and cast(JSON, value).get("type") not in FORMATS:
                raise _value(f"{here}.type", cast(JSON, value).get("type"), ", ".join(FORMATS))
        elif not isinstance(value, wanted):
            raise Wrong("invalid_type", f"Invalid type for '{here}'.", here)
        if name == "voice" and isinstance(value, str) and value not in VOICES:
            raise _value(here, value, ", ".join(VOICES))


def _value(param: str, value: object, known: str) -> Wrong:
    return Wrong(
        "invalid_value", f"Invalid value: '{value}'. Supported values are: {known}.", param
    )


def merged(old: JSON, new: JSON) -> JSON:
    """The configuration after an update: objects are merged, all else is replaced."""
    both = dict(old)
    for name, value in new.items():
        before = both.get(name)
        if (
            name in ("audio", "input", "output")
            and isinstance(before, dict)
            and isinstance(value, dict)
        ):
            both[name] = merged(cast(JSON, before), cast(JSON, value))
        else:
            both[name] = value
    return both


def defaults(model: str) -> JSON:
    """The configuration that a session begins with, as it is told: with what must not be sent back."""
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": f"sess_{uuid4().hex[:21]}",
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "Be kind and short.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "include": None,
        "expires_at": int(time.time()) + 3600,
        "client_secret": None,
        "audio": {
            "input": {
                "format": PCM,
                "transcription": None,
                "noise_reduction": None,
                "turn_detection": TURNS,
            },
            "output": {"format": PCM, "voice": "marin", "speed": 1.0},
        },
    }
