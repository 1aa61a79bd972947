"""What clients of the beta still say where the protocol has moved on: mended where that is certain."""

from typing import Any, cast

from gateway.voice.events import Event, is_object
from gateway.voice.shape import Misshapen

MOVED: dict[str, tuple[str, ...]] = {
    "modalities": ("output_modalities",),
    "voice": ("audio", "output", "voice"),
    "turn_detection": ("audio", "input", "turn_detection"),
    "input_audio_transcription": ("audio", "input", "transcription"),
    "input_audio_noise_reduction": ("audio", "input", "noise_reduction"),
    "input_audio_format": ("audio", "input", "format"),
    "output_audio_format": ("audio", "output", "format"),
    "max_response_output_tokens": ("max_output_tokens",),
}
FORMATS: dict[str, Event] = {
    "pcm16": {"type": "audio/pcm", "rate": 24000},
    "g711_ulaw": {"type": "audio/pcmu"},
    "g711_alaw": {"type": "audio/pcma"},
}


def mended(session: Event) -> tuple[Event, list[tuple[str, str]]]:
    """The configuration in today's places, and where each key was and is now (`session.voice`,
    `session.audio.output.voice`). Raises Misshapen where it could mean two things."""
    found, moves = dict(session), list[tuple[str, str]]()
    for name, place in MOVED.items():
        if name in found:
            new = "session." + ".".join(place)
            value = _today(name, found.pop(name), new)
            found = _put(found, place, value, name, new)
            moves.append((f"session.{name}", new))
    if moves and "type" not in found:
        found["type"] = "realtime"  # the beta had no other kind here
        moves.append(("session.type", "session.type"))
    return found, moves


def _today(name: str, value: Any, new: str) -> Any:
    if name == "modalities":
        told: list[Any] = cast("list[Any]", value) if isinstance(value, list) else [value]
        kinds = {str(one) for one in told}
        if kinds not in ({"text"}, {"audio"}, {"audio", "text"}):
            raise _unclear(name, new)
        return ["audio"] if "audio" in kinds else ["text"]  # audio comes with its transcript
    if name.endswith("_format"):
        if not isinstance(value, str) or value not in FORMATS:
            raise _unclear(name, new)
        return FORMATS[value]
    return value


def _put(session: Event, place: tuple[str, ...], value: Any, name: str, new: str) -> Event:
    """The configuration with the value there. Raises Misshapen if it says something else already."""
    first, *rest = place
    if not rest:
        if session.get(first, value) != value:
            raise _unclear(name, new)
        return session | {first: value}
    inner = session.get(first, {})
    if not is_object(inner):
        raise _unclear(name, new)
    return session | {first: _put(inner, tuple(rest), value, name, new)}


def _unclear(name: str, new: str) -> Misshapen:
    return Misshapen(
        "unknown_parameter",
        f"Unknown parameter: 'session.{name}'. Say what you mean in '{new}' only.",
        f"session.{name}",
    )
