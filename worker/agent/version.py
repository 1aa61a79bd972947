"""The CLI's version: which one this worker would run, and whether Baton was tested with it.

What the CLI does with session ids, transcripts and costs differs from version to version.
Baton goes on with any of them: each turn is judged by what came back. But what it relies
on was seen in one version, the one that the SDK brings along.
"""

import re
import subprocess
import time
from functools import lru_cache

import structlog

from config.settings import settings
from worker.sandbox.leash import cli

log = structlog.get_logger()

AGAIN = 300.0  # seconds until a program that told nothing is asked again
TESTED = "2.1.332"  # a test holds that it is the version of the pinned SDK


_told = dict[str, str]()  # by the program's path


def cli_version() -> str | None:
    """As `claude --version` says it (`2.1.327`); None if the program cannot be run: it is asked again
    then, but not by each who wants to know."""
    path = cli()
    if path not in _told and (version := _asked(path, int(time.monotonic() // AGAIN))):
        _told[path] = version
    return _told.get(path)


@lru_cache(maxsize=1)
def _asked(path: str, _: int) -> str | None:
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    words = done.stdout.split()
    return words[0] if done.returncode == 0 and words else None


def changed(version: str | None) -> bool:
    """Whether a session of that version is gone on from by another one of the CLI here."""
    if not version or not _parts(version):
        return False
    return version != (cli_version() if settings().cli_path else TESTED)


def unsupported(version: str | None) -> str | None:
    """Why Baton was not tested with this version, in a sentence; None if it was."""
    if version == TESTED:
        return None
    if version is None:
        return "It cannot be run, or does not tell its version: look at BATON_CLI_PATH, or reinstall."
    if not (given := _parts(version)):
        return f"{version} is no version of it: look at BATON_CLI_PATH."
    age = "older" if given < _parts(TESTED) else "newer"
    return (
        f"{version} is {age} than {TESTED}, with which Baton is tested: leave BATON_CLI_PATH"
        " empty, or try it out before it works on sessions of worth."
    )


def warn_of_another() -> None:
    """Say it in the log, once, as a worker starts."""
    if why := unsupported(cli_version()):
        log.warning("cli.unsupported", why=why)


def _parts(version: str) -> list[int]:
    """Empty for what is no version."""
    found = re.match(r"\d+(\.\d+)+", version)
    return [int(part) for part in found[0].split(".")] if found else []
