"""What runs for a checkout, as `.baton/services.json` says while it does.

Every command of `baton` reads it: so this imports no client of a database.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dev.stack import processes
from dev.stack.processes import Process

if TYPE_CHECKING:
    from dev.stack.server import Server


@dataclass(frozen=True, slots=True)
class Services:
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    plain_broker_url: str = field(
        default="", repr=False
    )  # of Redis' user for plain producers; empty: REDIS_URL is theirs
    model_url: str = ""  # of the stand-in, where it runs
    flower_url: str = field(default="", repr=False)  # with its password
    web_url: str = ""
    unboxed: bool = False  # agents run without a box: there can be none here
    embedded: "tuple[Server, ...]" = ()  # those started here, in the order of their start

    @property
    def redis_told(self) -> str:
        """Redis' address for the terminal: one of our own with its password, which was made here
        and opens nothing else."""
        ours = self.redis_url in (one.url for one in self.embedded)
        return self.redis_url if ours else without_password(self.redis_url)


def without_password(url: str) -> str:
    """An address as it may be shown to anybody."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=user.partition(":")[0] + at + host, query="").geturl()


def find(root: Path) -> Services | None:
    """The services that run for the checkout at `root`, or None."""
    try:
        noted = json.loads((root / ".baton" / "services.json").read_text())
        found = Services(
            noted["database_url"],
            noted["redis_url"],
            noted.get("plain_broker_url", ""),
            noted.get("model_url", ""),
            noted.get("flower_url", ""),
            noted.get("web_url", ""),
            noted.get("unboxed", False),
        )
        if all(processes.alive(Process(**one)) for one in noted["processes"]):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or half of it: nothing runs that we could name
    return None
