"""A line of doctor's: what was looked at, how it is, and what was seen."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "fail"]
Verdict = tuple[State, str]


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and what was seen."""

    name: str
    state: State
    text: str
