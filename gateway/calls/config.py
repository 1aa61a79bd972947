"""A call's configuration: that of a voice session, with the audio of telephones."""

import json
from typing import Any

from gateway.voice import beta, events, shape
from gateway.voice.events import Event, part
from gateway.voice.shape import Misshapen
from worker.text.storable import plain_data

TELEPHONE: Event = {"type": "audio/pcmu"}


def checked(config: dict[str, Any]) -> Event:
    """The configuration with what is known of it. Raises Misshapen."""
    told, _ = beta.mended({"type": "realtime", **config})
    found = shape.checked(told)
    if found["type"] != "realtime":
        raise Misshapen(
            "invalid_value",
            "Invalid value of 'session.type': a call speaks, so it is 'realtime'.",
            "session.type",
        )
    if not _storable(found):
        raise Misshapen(
            "invalid_value",
            "Invalid value in 'session': a number must be finite, and text be UTF-8 without a NUL.",
            "session",
        )
    return found


def _storable(config: Event) -> bool:
    try:
        json.dumps(config, allow_nan=False)
    except ValueError:
        return False
    return plain_data(config) == config


def update(config: Event) -> Event:
    """The session.update that applies it to a telephone's voice session."""
    audio = {
        side: part(config, "audio", side) | {"format": TELEPHONE}
        for side in ("input", "output")
    }
    return {
        "type": "session.update",
        "event_id": events.new_id(),
        "session": config | {"audio": audio},
    }
