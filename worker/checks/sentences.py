"""How a check is told of to people and to the agent."""

from db.jobs.checks import Result
from worker.checks.command import LIMIT, TIMEOUT

SHOWN = 200  # characters of a command


def ending(found: Result) -> str:
    """How a command ended, in a few words."""
    took = f"after {found.duration_ms / 1000:.1f} s"
    if found.reason == TIMEOUT:
        return f"stopped {took}, which is longer than it may take"
    if found.reason == LIMIT:
        return f"stopped {took}: it used more memory or processes than it may"
    if found.signal is not None:
        return f"killed by signal {found.signal} {took}"
    missing = ": there is no such program" if found.exit_status == 127 else ""
    return f"exit status {found.exit_status} {took}{missing}"


def sentence(failed: Result, why: str, what: str) -> str:
    """What a job ends with whose version fails: how, why it is not mended, and `what` now."""
    line = " ".join(failed.command.split())
    line = line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
    return f"The check `{line}` failed ({ending(failed)}){' ' if why else ''}{why}. {what}"
