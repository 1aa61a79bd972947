"""The CLI's version: which one this worker would run."""

import subprocess
from functools import cache

from worker.agent.leash import cli


@cache
def cli_version() -> str | None:
    """As `claude --version` says it (`2.1.327`); None if the program cannot be run."""
    try:
        done = subprocess.run(
            [cli(), "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return words[0] if done.returncode == 0 and words else None
