"""The provider of realtime voice under `baton up`: OpenAI where there is a key, else a stand-in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from config.settings import settings
from dev.stack.processes import LOOPBACK, own_port

NAME = "voice"  # of its process


@dataclass(frozen=True, slots=True)
class Provider:
    """`command` starts it if it is the stand-in; `env` is for the gateway alone."""

    command: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])


def choose(given: Mapping[str, str]) -> Provider:
    """What is set goes before the stand-in: a key, or an address."""
    chosen = "realtime_url" in settings().model_fields_set or given.get("BATON_REALTIME_URL")
    key = settings().openai_api_key.get_secret_value() or given.get("OPENAI_API_KEY")
    if chosen or key:
        return Provider()
    port = own_port()
    return Provider(
        f"python -m dev.standin.realtime --port {port}",
        {"BATON_REALTIME_URL": f"ws://{LOOPBACK}:{port}/v1/realtime"},
    )
