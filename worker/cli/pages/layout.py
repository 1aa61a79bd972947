"""Laying a page out in lines: at a terminal within its width, elsewhere as long as they are.

A table that is too wide wraps its sentences, between words; then it has them below each row;
then each row becomes a block of `name  value` lines. So nothing is cut off, and no id broken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from unicodedata import combining, east_asian_width

from worker.text.units import NOTHING, clean

GAP = "  "  # between columns
LEAST = 24  # columns that a sentence in a table has to have
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
BOLD, DIM = "bold", "dim"
SGR = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36}


@dataclass(frozen=True, slots=True)
class Name:
    """An id: `short` tells it from all others today, and is what a terminal shows."""

    full: str
    short: str

    def __str__(self) -> str:
        return self.full


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under the names of their columns; `empty` is said when there are none."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    empty: str
    title: str = ""
    right: frozenset[str] = frozenset()  # columns of numbers
    words: frozenset[str] = frozenset()  # columns of sentences, which may be wrapped


@dataclass(frozen=True, slots=True)
class Facts:
    """Names with their values, one a line."""

    rows: Sequence[tuple[str, Any]]
    title: str = ""


Page = Sequence[Table | Facts | str]


def plain(page: Page) -> list[str]:
    """The page for pipes and files: nothing is wrapped, ids are whole."""
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
                lines += _aligned(part.columns, _cells(part, short=False), part)
    return lines


def drawn(page: Page, width: int, *, color: bool = True) -> list[str]:
    """The page for a terminal of that many columns."""
    lines = list[str]()
    for part in page:
        if not isinstance(part, str) and part.title:
            lines += ["", styled(part.title, BOLD, color)]
        match part:
            case str():
                lines += wrapped(clean(part), width)
            case Facts(rows=rows):
                lines += _facts([(name, clean(_short(v))) for name, v in rows], width, color)
            case Table(rows=[]):
                lines += [styled(line, DIM, color) for line in wrapped(part.empty, width)]
            case Table():
                lines += _table(part, width, color)
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most that width, broken between words. A word that is longer
    has a line to itself: an id, a path or an address is never broken."""
    lines, line = list[str](), ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and cells(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
        while not line.isascii() and cells(line) > width:  # a script without spaces
            lines.append(_head(line, width))
            line = line[len(lines[-1]) :]
    return [*lines, line]


def _head(text: str, width: int) -> str:
    end = 1
    while end < len(text) and cells(text[: end + 1]) <= width:
        end += 1
    return text[:end]


def cells(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii() or not any(map(_is_wide, text)):
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _is_wide(character: str) -> bool:
    """Whether it may take another than one column."""
    return east_asian_width(character) in "WF" or combining(character) > 0


def _short(value: Any) -> Any:
    return value.short if isinstance(value, Name) else value


def _cells(table: Table, *, short: bool) -> list[list[str]]:
    return [[clean(_short(v) if short else v) for v in row] for row in table.rows]


def _aligned(columns: Sequence[str], rows: list[list[str]], table: Table) -> list[str]:
    every = [list(columns), *rows]
    widths = _widths(every)
    return [GAP.join(_padded(row, widths, table)).rstrip() for row in every]


def _widths(rows: list[list[str]]) -> list[int]:
    return [max(map(cells, column)) for column in zip(*rows, strict=True)]


def _padded(row: list[str], widths: Sequence[int], table: Table) -> list[str]:
    return [
        " " * (width - cells(cell)) + cell
        if name in table.right
        else cell + " " * (width - cells(cell))
        for name, cell, width in zip(table.columns, row, widths, strict=True)
    ]


def _table(table: Table, width: int, color: bool) -> list[str]:
    table = replace(table, rows=_cells(table, short=True))
    if widths := _fitted(table, width):
        return _grid(table, widths, [[] for _ in table.rows], color)
    inline = [n for n, name in enumerate(table.columns) if name not in table.words]
    bare = replace(
        table,
        columns=[table.columns[n] for n in inline],
        rows=[[row[n] for n in inline] for row in table.rows],
    )
    if widths := _fitted(bare, width):
        return _grid(bare, widths, [_under(table, row, width) for row in table.rows], color)
    return _blocks(table, width, color)


def _under(table: Table, row: Sequence[str], width: int) -> list[str]:
    """The sentences of a row, below it."""
    told = [v for n, v in zip(table.columns, row, strict=True) if n in table.words]
    return [
        GAP + line
        for v in told
        if v != NOTHING
        for line in wrapped(v, max(width - len(GAP), 1))
    ]


def _grid(table: Table, widths: list[int], under: list[list[str]], color: bool) -> list[str]:
    head = GAP.join(_padded(list(table.columns), widths, table)).rstrip()
    rule = "─" * (sum(widths) + len(GAP) * (len(widths) - 1))
    lines = [styled(head, BOLD, color), styled(rule, DIM, color)]
    for row, more in zip(table.rows, under, strict=True):
        lines += [*_row(table, list(row), widths, color), *more]
    return lines


def _fitted(table: Table, width: int) -> list[int] | None:
    """The columns' widths, sentences with what the others leave; None if that is too little."""
    rows: Sequence[Sequence[str]] = table.rows
    widths = _widths([list(table.columns), *map(list, rows)])
    left = width - len(GAP) * (len(widths) - 1)
    if sum(widths) <= left:
        return widths
    words = [n for n, name in enumerate(table.columns) if name in table.words]
    left -= sum(width for n, width in enumerate(widths) if n not in words)
    for place, n in enumerate(sorted(words, key=lambda n: widths[n])):
        share = min(widths[n], left // (len(words) - place))
        longest = max(cells(word) for row in rows for word in row[n].split(" "))
        if share < max(min(LEAST, widths[n]), longest):
            return None
        widths[n], left = share, left - share
    return widths if left >= 0 else None


def _row(table: Table, row: list[str], widths: list[int], color: bool) -> list[str]:
    parts = [
        wrapped(cell, width) if name in table.words else [cell]
        for name, cell, width in zip(table.columns, row, widths, strict=True)
    ]
    lines = list[str]()
    for n in range(max(map(len, parts))):
        texts = [part[n] if n < len(part) else "" for part in parts]
        padded = _padded(texts, widths, table)
        told = [
            pad.replace(text, styled(text, STYLES[text], color)) if text in STYLES else pad
            for text, pad in zip(texts, padded, strict=True)
        ]
        lines.append(GAP.join(told).rstrip())
    return lines


def _blocks(table: Table, width: int, color: bool) -> list[str]:
    """Each row as a block of its own; what is not said of it is left out."""
    lines = list[str]()
    for row in table.rows:
        facts = [(n, v) for n, v in zip(table.columns, row, strict=True) if v != NOTHING]
        lines += [*([""] if lines else []), *_facts(facts, width, color)]
    return lines


def _facts(rows: Sequence[tuple[str, str]], width: int, color: bool) -> list[str]:
    indent = max((cells(name) for name, _ in rows), default=0)
    lines = list[str]()
    for name, value in rows:
        parts = wrapped(value, max(width - indent - len(GAP), 1))
        style = STYLES.get(value)
        for n, part in enumerate(parts):
            told = styled(part, style, color) if style else part
            label = name if n == 0 else ""
            pad = " " * (indent - cells(label))
            lines.append(f"{styled(label, DIM, color)}{pad}{GAP}{told}".rstrip())
    return lines


def styled(text: str, style: str, color: bool = True) -> str:
    """The text in that style, for a terminal that has colours."""
    return f"\x1b[{SGR[style]}m{text}\x1b[0m" if color and text else text
