"""What the processes of `baton up` are given: the services' URLs, the model, the PATH."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from config.release import DISTRIBUTION
from config.settings import STANDIN_KEY, settings
from dev.stack import flower
from dev.stack.noted import Services
from dev.stack.processes import LOOPBACK, own_port
from dev.stack.server import ServiceError
from worker.sandbox import box

SCENARIO = "demo"
STORY = "its answers are scripted, and whatever is asked for it builds the same trail guide"


@dataclass(frozen=True, slots=True)
class Model:
    """The model API the agent talks to; `command` starts it if it is the stand-in."""

    told: str  # for people
    url: str = ""  # empty: the real one
    key: str = field(default="", repr=False)  # empty: as the environment has it
    command: str = ""


def choose_model(overrides: Mapping[str, str]) -> Model:
    """The real model if there is a key or an address, otherwise the stand-in on loopback.

    Raises ServiceError where there is no stand-in.
    """
    base = overrides.get("ANTHROPIC_BASE_URL") or settings().anthropic_base_url
    keys = settings().anthropic_api_key, settings().anthropic_auth_token
    key = overrides.get("ANTHROPIC_API_KEY") or any(one.get_secret_value() for one in keys)
    if base or key:
        return Model(told=base or "https://api.anthropic.com")
    if not all(map(find_spec, ("aiohttp", "yaml"))):
        raise ServiceError(
            "There is no model: set ANTHROPIC_API_KEY, or `pip install"
            f" '{DISTRIBUTION}[local]'` for a stand-in with scripted answers."
        )
    port = own_port()
    url = f"http://{LOOPBACK}:{port}"
    return Model(
        told=f"{url} (a stand-in, for ANTHROPIC_API_KEY is not set: {STORY})",
        url=url,
        key=STANDIN_KEY,
        command=f"python -m dev.standin --scenario {SCENARIO} --port {port}",
    )


def without_box(overrides: Mapping[str, str]) -> str | None:
    """What is told where agents are to run without a box, as nobody has said: there can be none
    here, and somebody looks on. A worker that is started by itself starts no agent then."""
    if overrides.get("BATON_SANDBOX", settings().sandbox) != "auto":
        return None
    why = box.missing()
    return f"{why}: agents run with your rights, in no box (BATON_SANDBOX=off)" if why else None


def child_environment(running: Services, model: Model) -> dict[str, str]:
    """The environment as it is, with what `baton up` knows better."""
    programs = Path(sys.executable).parent
    env = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "REDIS_URL": running.redis_url,
    }
    for name in flower.SECRETS:  # they are for Flower alone
        env.pop(name, None)
    if model.url:
        env |= {"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": model.key}
        # A proxy of the environment must not be asked for what is on this machine.
        env["NO_PROXY"] = env["no_proxy"] = f"{LOOPBACK},{os.environ.get('NO_PROXY', '')}"
    if "drain_grace" not in settings().model_fields_set:
        env["BATON_DRAIN_GRACE"] = "5"  # somebody waits at the terminal
    return env
