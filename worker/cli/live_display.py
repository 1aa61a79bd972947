"""A chain as it runs, on a terminal: a line for each thing that happens, and below them
what is going on right now."""

import os
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from worker.cli.pages.layout import STYLES
from worker.cli.watch import LONG_SILENCE, PULSE, SILENT, WAITS, Happening, line, worth_a_line
from worker.text.units import clean, clock, duration

INDENTED = ("tool", "tool.done", "text", "model.retry", SILENT)
STYLE = {
    "text": "dim",
    "model.retry": "yellow",
    "tool.done": "red",
    WAITS: "yellow",
    SILENT: "yellow",
}
ENDS = ("done", "failed", "cancelled", "quarantined")
IDS = re.compile(r"\b([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
ENDLESS = 10_000  # columns: a pipe has no width, and its lines are whole


def console() -> Console:
    """Where this process prints. In a pipe a line is as long as it is, unless COLUMNS says."""
    wide = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else ENDLESS
    return Console(highlight=False, width=wide)


def show(seen: Iterable[Happening], console: Console) -> None:
    """Print everything that is seen, with a live line below, until there is no more."""
    now = Now()
    with Live(now, console=console, refresh_per_second=8, transient=True):
        for one in seen:
            now.note(one)
            if worth_a_line(one):
                console.print(drawn(one))


def drawn(seen: Happening) -> Text:
    """One line: the time, which job, what happened."""
    style = STYLES.get(seen.what.removeprefix("job.")) or STYLE.get(seen.what, "")
    told = clean(line(seen))
    if seen.what == "session.moved":
        told = IDS.sub(r"\1", told)
    if seen.what.startswith("turn.") and seen.step and seen.step != seen.kind:
        told = f"{clean(seen.step)}: {told}"
    return Text.assemble(
        (f"{clock(seen.at)} ", "dim"),
        (f"{clean(seen.kind):<11}", "bold" if seen.what.startswith("job.") else "dim"),
        ("  " if seen.what in INDENTED else "", ""),
        (told, style),
    )


@dataclass
class Now:
    """The live line: the job that runs, what it did last, for how long, and how long its agent
    has said nothing."""

    kind: str = ""
    doing: str = "is asked for"
    since: float = field(default_factory=time.monotonic)
    job: UUID | None = None
    heard: float | None = None  # time.monotonic() at which its agent was
    _frames: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    def note(self, seen: Happening) -> None:
        """Take in what was seen."""
        what, now = seen.what.removeprefix("job."), time.monotonic()
        if what == PULSE:
            self.heard = now - float(seen.body["silent_s"])
            return
        if what == WAITS or (seen.job != self.job and what in ("started", "turn.began")):
            self.job, self.since, self.heard = seen.job, now, None
        if what in ENDS and seen.job == self.job:
            self.kind, self.doing, self.job = "", "waiting for what follows", None
            self.since, self.heard = now, None
        elif what not in ("session.moved", SILENT):
            self.kind, self.doing = seen.kind, line(seen)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = time.monotonic()
        silent = now - self.heard if self.heard is not None else 0.0
        text = Text.assemble(
            cast(Text, self._frames.render(console.get_time())),
            f" {duration(now - self.since)}  ",
            (
                f"silent for {duration(silent)}  " if silent >= LONG_SILENCE / 3 else "",
                "yellow",
            ),
            (f"{clean(self.kind)}  " if self.kind else "", "bold"),
            clean(self.doing),
        )
        text.truncate(options.max_width, overflow="ellipsis")
        yield text
