"""A chain as it runs, on a terminal: a line for each thing that happens, and below them
what is going on right now."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from worker.screen import STYLES, clean, duration
from worker.watch import Seen, line, worth_a_line

INDENTED = ("tool", "tool.done", "text", "model.retry")
STYLE = {"text": "dim", "model.retry": "yellow", "tool.done": "red"}
ENDS = ("done", "failed", "cancelled", "quarantined")


def show(seen: Iterable[Seen], console: Console) -> None:
    """Print everything that is seen, with a live line below, until there is no more."""
    now = Now()
    with Live(now, console=console, refresh_per_second=8, transient=True):
        for one in filter(worth_a_line, seen):
            now.note(one)
            console.print(drawn(one), soft_wrap=True)


def drawn(seen: Seen) -> Text:
    """One line: the time, which job, what happened."""
    style = STYLES.get(seen.what.removeprefix("job.")) or STYLE.get(seen.what, "")
    told = clean(line(seen))
    if seen.what.startswith("turn.") and seen.step and seen.step != seen.kind:
        told = f"{clean(seen.step)}: {told}"
    return Text.assemble(
        (seen.at.astimezone().strftime("%H:%M:%S "), "dim"),
        (f"{clean(seen.kind):<11}", "bold" if seen.what.startswith("job.") else "dim"),
        ("  " if seen.what in INDENTED else "", ""),
        (told, style),
    )


@dataclass
class Now:
    """The live line: the job that runs, what it did last, and for how long."""

    kind: str = ""
    doing: str = "waiting for a worker"
    since: float = field(default_factory=time.monotonic)
    job: UUID | None = None
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))

    def note(self, seen: Seen) -> None:
        """Take in what was seen."""
        what = seen.what.removeprefix("job.")
        if seen.job != self.job and what in ("started", "turn.began"):
            self.job, self.since = seen.job, time.monotonic()
        if what in ENDS and seen.job == self.job:
            self.kind, self.doing, self.job = "", "waiting for what follows", None
            self.since = time.monotonic()
        elif seen.what != "session.moved":
            self.kind, self.doing = seen.kind, line(seen)

    def __rich__(self) -> Spinner:
        passed = duration(time.monotonic() - self.since)
        self._spinner.update(
            text=Text.assemble(
                (f"{clean(self.kind)}  " if self.kind else "", "bold"),
                f"{clean(self.doing)[:100]}  ",
                (passed, "dim"),
            )
        )
        return self._spinner
