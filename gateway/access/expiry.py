"""What whoever comes with a key that has ended is told, at every door."""

from datetime import datetime

from worker.text.units import instant


def has_ended(at: datetime) -> str:
    """One sentence."""
    return f"This key ended at {instant(at)}: make another with `baton key create`."
