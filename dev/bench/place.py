"""Where a benchmark runs: a directory, a Postgres and a Redis of its own, removed afterwards.

def main(root: Path) -> int:
    return at_place(root, _tell)

def _tell(place: Place) -> None:
    with model(place.path) as url:
        place.enter(url)
        place.console.print(…)
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from config import logging as logs
from config.settings import STANDIN_KEY, settings
from db.core import pool
from db.core.migrate import migrate
from dev.stack.services import services
from dev.stack.up import EXPECTED


@dataclass(frozen=True, slots=True)
class Place:
    """The directory, the servers, and where figures are printed."""

    path: Path
    database_url: str
    redis_url: str
    console: Console

    def enter(self, model_url: str, **more: str) -> None:
        """This process works here from now on, asks that model, and has `more` settings."""
        os.environ |= {
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "ANTHROPIC_BASE_URL": model_url,
            "ANTHROPIC_API_KEY": STANDIN_KEY,
            "NO_PROXY": "127.0.0.1",
            "BATON_WORKSPACES": f"{self.path}/workspaces",
            "BATON_AGENT_HOME": f"{self.path}/agent",
            "BATON_EGRESS_HOME": f"{self.path}/egress",
            "BATON_LOG_LEVEL": "error",
            **more,
        }
        settings.cache_clear()
        logs.configure()


def at_place(root: Path, tell: Callable[[Place], None]) -> int:
    """Measure there, and print the figures; the exit code."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as path,
            services(Path(path), database_url="", redis_url="") as running,
        ):
            migrate(running.database_url)
            tell(Place(Path(path), running.database_url, running.redis_url, console))
            pool.close()
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    return 0
