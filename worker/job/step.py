"""A step: one turn of a job, as a task asks for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from worker.agent import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One turn of a job: its name in the ledger, what is asked, and how the agent may work.

    `accept` raises a JobError if the turn is not what was asked for: it has failed then.
    """

    name: str
    prompt: str
    mode: Literal["work", "read", "compact"] = "work"
    schema: dict[str, Any] | None = None
    enforced: bool = False  # an answer of that form, by all means
    model: str | None = None
    budget: float | None = None  # USD; None: the request's
    accept: Callable[[Turn], object] = lambda _: None
