"""The test's side of dev/faults/strikes.py: what is to be struck, and what has been."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

WORKERS = "celery -A dev.faults.worker worker --loglevel INFO"
RELAY = "python -m dev.faults.strikes"


@dataclass(frozen=True, slots=True)
class Struck:
    """A strike that a process has taken: at which point, what it did, which one, and when
    (seconds since the epoch)."""

    point: str
    fault: str
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Strikes:
    """The directory of orders; a folder is that of a project, or `relay`."""

    place: Path

    def order(self, whose: str, orders: Iterable[tuple[str, str]]) -> None:
        """At each of these points, in this order, do this, once."""
        folder = self.place / whose
        folder.mkdir(parents=True, exist_ok=True)
        taken = len(list(folder.iterdir()))
        for number, (point, fault) in enumerate(orders, start=taken):
            (folder / f"{number:03}:{point}:{fault}").touch()

    def struck(self, whose: str) -> list[Struck]:
        """What was taken, in order."""
        return [_read(name) for name in self._names(whose) if "=" in name]

    def left(self, whose: str) -> list[str]:
        """What is still waiting to be taken."""
        return [name for name in self._names(whose) if "=" not in name]

    def _names(self, whose: str) -> list[str]:
        return sorted(file.name for file in (self.place / whose).iterdir())


def _read(name: str) -> Struck:
    order, pid, at = name.split("=")
    _, point, fault = order.split(":")
    return Struck(point, fault, int(pid), float(at))
