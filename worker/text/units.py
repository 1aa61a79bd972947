"""Values as words for people: amounts, lengths of time, instants; no text steers a terminal.

Text and ids of users are data: a control character shows as its escape. A value that is none
(infinite, out of range) is shown as what it is, with a mark: one odd row blinds no page.
"""

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

from db.core.moments import Beyond

NOTHING = "-"
MARK = "(!)"  # after a value that cannot be right
FEW = 5  # of a list, or of a mapping's names
LONG = 80  # characters of a text within a mapping
# A moment as JSON has it.
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
LONGEST = 9_999 * 365 * 86_400  # seconds; beyond it a length of time is no plan


def clean(value: Any) -> str:
    """The value as one printable line: what could steer a terminal shows as its escape."""
    match value:
        case None | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case datetime():
            return instant(value)
        case dict():
            return summed(cast(dict[Any, Any], value))
        case _:
            text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def instant(at: datetime) -> str:
    """A moment, always in UTC: `2026-01-02 03:04:05Z`."""
    if isinstance(at, Beyond):
        return f"{at.text} {MARK}"
    try:
        return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError):  # within hours of the years 1 and 9999
        return f"{at.isoformat()} {MARK}"


def clock(at: datetime) -> str:
    """The time of day of a moment that was just now, in UTC."""
    return instant(at)[11:]


def summed(given: dict[Any, Any]) -> str:
    """A mapping as people read it: `files_created: 3 (a, b, c), text: made it`."""
    parts = (f"{clean(name)}: {_part(value)}" for name, value in given.items())
    return ", ".join(parts) or NOTHING


def _part(value: Any) -> str:
    match value:
        case list():
            items = cast(list[Any], value)
            named = ", ".join(shortened(clean(one), LONG) for one in items[:FEW])
            more = ", …" if len(items) > FEW else ""
            return f"{len(items)} ({named}{more})" if items else "none"
        case dict():
            return f"({summed(cast(dict[Any, Any], value))})"
        case str() if MOMENT.fullmatch(value):
            return _moment(value)
        case _:
            return shortened(clean(value), LONG)


def _moment(told: str) -> str:
    """A moment of a document in the form that all moments have for people."""
    try:
        return instant(datetime.fromisoformat(told))
    except ValueError:  # the 99th of a month
        return told


def shortened(text: str | None, limit: int) -> str:
    """At most `limit` characters of the text, on one line."""
    words = " ".join((text or "").split())
    return words if len(words) <= limit else f"{words[: limit - 1]}…"


def money(usd: Decimal | float | None, *, estimated: bool | None = False) -> str:
    """An amount in US dollars; `~` before an estimate."""
    if usd is None:
        return NOTHING
    return f"{'~' if estimated else ''}${usd:.4f}"


def duration(seconds: float | None) -> str:
    """A length of time in the two units that matter."""
    if seconds is None:
        return NOTHING
    if math.isnan(seconds) or abs(seconds) > LONGEST:
        return f"for ever {MARK}"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole // 60} m {whole % 60} s"


def number(count: int | None) -> str:
    """A count with its thousands apart."""
    return NOTHING if count is None else f"{count:,}"


def share(part: float | None) -> str:
    """A share as a percentage."""
    return NOTHING if part is None else f"{100 * part:.1f} %"


def size(count: int | None) -> str:
    """Bytes, in the unit that fits."""
    if count is None:
        return NOTHING
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
