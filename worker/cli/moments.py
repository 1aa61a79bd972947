"""Moments as people give them: `90m`, `6h`, `2d` ago, a date, or a moment."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}  # seconds


def parse_since(given: str) -> datetime:
    """The moment that is meant, in UTC where it does not say."""
    try:
        if given[-1:] in UNITS:
            return datetime.now(UTC) - timedelta(seconds=float(given[:-1]) * UNITS[given[-1]])
        found = datetime.fromisoformat(given)
    except (ValueError, OverflowError) as exc:
        raise typer.BadParameter(
            f"{given} is neither a length of time, such as 6h, nor a date, such as 2026-01-31"
        ) from exc
    return found if found.tzinfo else found.replace(tzinfo=UTC)


Since = Annotated[
    Any, typer.Option(metavar="WHEN", parser=parse_since, help="Since then: 6h, or a date.")
]
