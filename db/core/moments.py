"""A moment that Postgres can hold and Python cannot: infinity, the year 20000, before Christ."""

from datetime import UTC, datetime
from typing import Any


class Beyond(datetime):
    """A moment out of Python's range: it compares as the nearest that Python has, and `text`
    is as Postgres writes it."""

    text: str

    @classmethod
    def of(cls, text: str) -> "Beyond":
        """What Postgres wrote, such as `infinity` or `0044-03-15 00:00:00+00 BC`."""
        past = text.startswith("-") or text.endswith(" BC")
        edge = datetime.min.replace(tzinfo=UTC) if past else datetime.max.replace(tzinfo=UTC)
        made = cls.combine(edge.date(), edge.timetz())
        made.text = text
        return made

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        """As Postgres writes it: a document must not claim another moment."""
        del sep, timespec
        return self.text

    def __str__(self) -> str:
        return self.text

    def __deepcopy__(self, memo: Any) -> "Beyond":
        return self
