"""Since when upkeep has known that a ref may be deleted: git does not say how old a ref is."""

import json
from collections.abc import Collection
from pathlib import Path

from worker.workspace.trees import write_whole


class FirstSeen:
    """When each ref that may go was first seen so. Of others than those asked for, nothing stays."""

    def __init__(self, place: Path, before: dict[str, float], now: float) -> None:
        self._place, self._before, self._now = place, before, now
        self._after = dict[str, float]()

    @classmethod
    def read(cls, place: Path, now: float) -> "FirstSeen":
        """What was noted; nothing, where that cannot be read."""
        try:
            noted = {str(name): float(at) for name, at in json.loads(place.read_text()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            noted = dict[str, float]()
        return cls(place, noted, now)

    def older(self, names: Collection[str], than: float) -> list[str]:
        """Those that were first seen more than so many seconds ago."""
        for name in names:
            self._after[name] = self._before.get(name, self._now)
        return [name for name in names if self._now - self._after[name] >= than]

    def write(self) -> None:
        write_whole(self._place, json.dumps(self._after))
