"""What `baton` prints: tables at a terminal, plain lines elsewhere, or one JSON document.

Text and ids of users are data: no markup is read in them, and a control character shows
as its escape. Every part of a page is made of such strings; a document for JSON is made
of the values themselves.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

GAP = "  "  # between the columns of plain lines
NOTHING = "-"
STYLES = {
    "done": "green",
    "ok": "green",
    "SYNCED": "green",
    "resumed": "green",
    "committed": "green",
    "running": "cyan",
    "queued": "blue",
    "parked": "yellow",
    "warn": "yellow",
    "cancelled": "yellow",
    "rejected": "yellow",
    "abandoned": "yellow",
    "failed": "red",
    "fail": "red",
    "quarantined": "red",
    "OUT_OF_SYNC": "red",
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under the names of their columns; `empty` is said when there are none."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str
    title: str = ""
    right: frozenset[str] = frozenset()  # columns of numbers


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values, one a line."""

    rows: Sequence[tuple[str, Any]]
    title: str = ""


Page = Sequence[Table | Facts | str]


@dataclass
class Screen:
    """Where and how this process prints. `json`: one document on stdout, and nothing else."""

    json: bool = False
    shown: bool = False  # whether the document is out
    terminal: bool = field(default_factory=lambda: sys.stdout.isatty())

    def show(self, document: Any, page: Page) -> None:
        """Print the document, or the page that says the same to people."""
        if self.json:
            self.shown = True
            print(json.dumps(document, default=_encode, indent=2))  # noqa: T201
        elif self.terminal:
            _show_rich(page)
        else:
            print("\n".join(_plain(page)))  # noqa: T201

    def line(self, state: str, text: str) -> None:
        """Print a line at once, with its state in front."""
        if self.terminal:
            from rich.console import Console
            from rich.text import Text

            told = Text.assemble((f"{state:<4}", STYLES.get(state, "")), "  ", clean(text))
            Console(highlight=False).print(told, soft_wrap=True)
        else:
            print(f"{state:<4}  {clean(text)}", flush=True)  # noqa: T201


def _plain(page: Page) -> list[str]:
    lines = list[str]()
    for part in page:
        if not isinstance(part, str) and part.title:
            lines += [*([""] if lines else []), f"{part.title}:"]
        match part:
            case str():
                lines.append(clean(part))
            case Facts(rows=rows):
                lines += [f"{name}: {clean(value)}" for name, value in rows]
            case Table(rows=[]):
                lines.append(part.empty)
            case Table():
                lines += _aligned(part)
    return lines


def _aligned(table: Table) -> list[str]:
    rows = [list(table.columns), *([clean(value) for value in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = [name in table.right for name in table.columns]
    return [
        GAP.join(
            cell.rjust(width) if end else cell.ljust(width)
            for cell, width, end in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def _show_rich(page: Page) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(highlight=False)
    for part in page:
        if isinstance(part, str):
            console.print(Text(clean(part)))
            continue
        if part.title:
            console.print(Text(f"\n{part.title}", style="bold"))
        if isinstance(part, Table) and not part.rows:
            console.print(Text(part.empty, style="dim"))
            continue
        if isinstance(part, Facts):
            drawn = RichTable(box=None, show_header=False, padding=(0, 1))
            drawn.add_column(style="dim", no_wrap=True)
            drawn.add_column(overflow="fold")
        else:
            drawn = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
            for name in part.columns:
                drawn.add_column(
                    name, justify="right" if name in part.right else "left", overflow="fold"
                )
        for row in part.rows:
            cells = [clean(value) for value in row]
            drawn.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
        console.print(drawn)


def clean(value: Any) -> str:
    """The value as one printable line: what could steer a terminal shows as its escape."""
    match value:
        case None | "":
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case _:
            text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


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


def _encode(value: Any) -> Any:
    match value:
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return float(value)
        case _ if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        case _:
            return str(value)
