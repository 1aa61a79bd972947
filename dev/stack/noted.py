"""What runs for a checkout, as `.baton/services.json` says while it does.

Every command of `baton` reads it: so this imports no client of a database.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dev.stack import processes
from dev.stack.processes import Process

if TYPE_CHECKING:
    from dev.stack.server import Server


@dataclass(frozen=True, slots=True)
class Services:
    database_url: str
    redis_url: str
    model_url: str = ""  # of the stand-in, where it runs
    flower_url: str = ""  # with its password
    embedded: "tuple[Server, ...]" = ()  # those started here, in the order of their start


def find(root: Path) -> Services | None:
    """The services that run for the checkout at `root`, or None."""
    try:
        noted = json.loads((root / ".baton" / "services.json").read_text())
        found = Services(
            noted["database_url"],
            noted["redis_url"],
            noted.get("model_url", ""),
            noted.get("flower_url", ""),
        )
        if all(processes.alive(Process(**one)) for one in noted["processes"]):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or half of it: nothing runs that we could name
    return None
