"""What `baton` prints: tables at a terminal, plain lines elsewhere, or one JSON document.

No markup is read in what is printed. A document for JSON is made of the values themselves.
"""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, cast

from worker.cli.pages.layout import STYLES, Page, drawn, plain, styled, wrapped
from worker.text.units import clean

STATE = 6  # columns of a check's state, with the gap behind it


@dataclass
class Screen:
    """Where and how this process prints. `json`: one document on stdout, and nothing else."""

    json: bool = False
    shown: bool = False  # whether the document is out
    terminal: bool = field(default_factory=lambda: sys.stdout.isatty())

    @property
    def width(self) -> int:
        """Columns of the terminal; `COLUMNS` goes before what it says itself."""
        return shutil.get_terminal_size().columns

    @property
    def color(self) -> bool:
        """Whether what is printed may be coloured (no-color.org)."""
        return (
            self.terminal
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )

    def show(self, document: Any, page: Page) -> None:
        """Print the document, or the page that says the same to people."""
        if self.json:
            self.shown = True
            print(as_json(document))
        else:
            print("\n".join(self.lines(page)))

    def lines(self, page: Page) -> list[str]:
        """The page as it is printed here."""
        return drawn(page, self.width, color=self.color) if self.terminal else plain(page)

    def line(self, state: str, text: str) -> None:
        """Print a line at once, with its state in front."""
        if not self.terminal:
            print(f"{state:<4}  {clean(text)}", flush=True)
            return
        shown = styled(state, STYLES[state], self.color) if state in STYLES else state
        first, *more = wrapped(clean(text), max(self.width - STATE, 1))
        print(shown + " " * (STATE - len(state)) + first, flush=True)
        for line in more:
            print(" " * STATE + line, flush=True)


def as_json(document: Any) -> str:
    """The document as JSON that every reader takes: what is no number there is null."""
    return json.dumps(_encoded(document), indent=2, allow_nan=False)


def _encoded(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float() | Decimal():
            return float(value) if isfinite(value) else None
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            named = cast(Mapping[Any, Any], value)
            return {str(name): _encoded(each) for name, each in named.items()}
        case list() | tuple() | set() | frozenset():
            return [_encoded(each) for each in cast(list[Any], value)]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {f.name: _encoded(getattr(value, f.name)) for f in fields(value)}
        case _:
            return str(value)
