"""The gateway under `baton up`: its port, and the secret that signs tickets, made once.

.baton/secret    for its owner only; other commands here read it (`baton open`)
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.settings import settings
from dev.stack.processes import LOOPBACK, own_port
from dev.stack.services import home_of

NAME = "web"  # in the Procfile
SIGNS = "relay"  # and who signs webhooks


@dataclass(frozen=True, slots=True)
class Door:
    """Where the gateway is."""

    url: str
    env: Mapping[str, str]  # for it alone

    @property
    def secret(self) -> Mapping[str, str]:
        """What else is signed goes by the same secret."""
        return {"BATON_SECRET": self.env["BATON_SECRET"]}


def door(root: Path, given: Mapping[str, str]) -> Door:
    """The gateway's door in this checkout; a secret or an address that is `given` goes before ours."""
    wanted = given.get("BATON_WEB_PORT", "")
    port = own_port(first=int(wanted) if wanted.isdigit() else settings().web_port)
    url = given.get("BATON_WEB_URL") or f"http://{LOOPBACK}:{port}"
    return Door(
        url,
        {
            "BATON_WEB_PORT": str(port),
            "BATON_WEB_URL": url,
            "BATON_SECRET": given.get("BATON_SECRET") or secret(root),
        },
    )


def secret(root: Path) -> str:
    """This checkout's secret, made at the first start."""
    file = home_of(root) / "secret"
    if file.exists() and (known := file.read_text().strip()):
        return known
    fresh = secrets.token_hex(32)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as writing:
        writing.write(fresh)
    return fresh
