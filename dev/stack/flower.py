"""Flower under `baton up`: a password of this checkout's own, from the first start.

    .baton/flower/password    made once, for its owner only

Flower alone is given it: what an agent could read of a worker's environment has no key to all jobs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dev.stack import passwords
from dev.stack.processes import LOOPBACK
from dev.stack.services import home_of

NAME = "flower"  # in the Procfile
USER = "baton"
SECRETS = (
    "FLOWER_BASIC_AUTH",
    "FLOWER_OAUTH2_KEY",
    "FLOWER_OAUTH2_SECRET",
    "FLOWER_COOKIE_SECRET",
)


@dataclass(frozen=True, slots=True)
class Door:
    """Where Flower is, and how to come in."""

    url: str = field(repr=False)  # with user and password, where they are ours
    answers: str  # without them
    env: Mapping[str, str] = field(repr=False)  # for Flower alone


def door(root: Path, port: int, given: Mapping[str, str]) -> Door:
    """Flower's door in this checkout; a password or OAuth that is `given` goes before ours."""
    answers = f"http://{LOOPBACK}:{port}"
    chosen = {name: given[name] for name in SECRETS if given.get(name)}
    if "FLOWER_BASIC_AUTH" in chosen or given.get("FLOWER_AUTH"):
        return Door(answers, answers, chosen)
    password = passwords.kept(home_of(root) / "flower" / "password")
    url = f"http://{USER}:{password}@{LOOPBACK}:{port}"
    return Door(url, answers, chosen | {"FLOWER_BASIC_AUTH": f"{USER}:{password}"})
