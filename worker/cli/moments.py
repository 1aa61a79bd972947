"""Moments as people give them: `90m`, `6h`, `2d` ago or from now, a date, or a moment."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

LONGEST = timedelta(days=36_500)
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}  # seconds


def parse_since(given: str) -> datetime:
    """The moment that is meant, in UTC where it does not say."""
    try:
        if given[-1:] in UNITS:
            return datetime.now(UTC) - _length(given)
        return _moment(given)
    except (ValueError, OverflowError) as exc:
        raise typer.BadParameter(
            f"{given} is neither a length of time, such as 6h, nor a date, such as 2026-01-31"
        ) from exc


def parse_end(given: str) -> datetime | timedelta:
    """A moment, or how long until then."""
    try:
        found = _length(given) if given[-1:] in UNITS else _moment(given)
    except (ValueError, OverflowError) as exc:
        raise typer.BadParameter(
            f"{given} is neither a length of time, such as 90d, nor a date, such as 2030-01-31"
        ) from exc
    if isinstance(found, timedelta) and found > LONGEST:
        raise typer.BadParameter(f"{given} is longer than 100 years")
    return found


def _length(given: str) -> timedelta:
    return timedelta(seconds=float(given[:-1]) * UNITS[given[-1]])


def _moment(given: str) -> datetime:
    found = datetime.fromisoformat(given)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


Since = Annotated[
    Any, typer.Option(metavar="WHEN", parser=parse_since, help="Since then: 6h, or a date.")
]
Until = Annotated[
    Any, typer.Option(metavar="WHEN", parser=parse_end, help="Until then: 90d, or a date.")
]
