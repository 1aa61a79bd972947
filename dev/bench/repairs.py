"""`baton bench repairs`: what it costs to mend what a check found, in the session that made the files and
in a fresh one.

The CLI is the real one, the workspace and the model are those of `make study` (reader.py): a session that
has not read the files of an update reads them, and looks around first if it knows none. Each update
leaves out a file, its check says so, and the repair writes it. What is printed is `baton report checks`.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from psycopg import Connection

from config.settings import settings
from db.core import ledger_settings
from db.jobs import jobs
from dev.bench.place import Place, at_place
from dev.bench.reader import TASKS, Reader, candidates, scenario
from dev.bench.study import WINDOW, Clock, asking, lay_out
from dev.standin.model import Seen
from dev.standin.scenario import Step, Use
from tasks.build import do_build
from worker.cli.console import screen
from worker.cli.pages.figures import checks_page
from worker.client import Build, Update, enqueue
from worker.job.run import run
from worker.reports import figures

# How much of the turns resume: all, and none (the control sample).
SAMPLES = {"resumed": "100", "control": "0"}
CHECK = (
    "test -f changes/{n}-mended.md ||"
    " {{ echo '[update {n}] changes/{n}-0.md names changes/{n}-mended.md, which is not there'; exit 1; }}"
)


class Mender(Reader):
    """A reader that leaves a file out, and writes it when a check has missed it."""

    def _steps(self, number: int, seen: Seen) -> Iterator[Step]:
        *work, last = super()._steps(number, seen)
        yield from work
        if "<check-output>" in seen.prompt:
            path = f"{{cwd}}/changes/{number}-mended.md"
            yield Use((("Write", {"file_path": path, "content": "It is mended.\n"}),))
        yield last


def main(root: Path, updates: int = 4) -> int:
    """Run so many updates of each sample, and print the report; the data is removed again."""
    return at_place(root, lambda place: _tell(place, updates))


def _tell(place: Place, updates: int) -> None:
    model = Mender(scenario(), clock=Clock(), limit=WINDOW)
    with asking(model, place) as conn:
        for sample, percent in SAMPLES.items():
            _mend(conn, model, sample, percent, updates)
        document = figures.checks(conn, 1)
    screen.show(document, checks_page(document))


def _mend(conn: Connection, model: Reader, sample: str, percent: str, updates: int) -> None:
    """A project of its own: a first build, and updates that fail their check once."""
    os.environ |= {"BATON_RESUME_PERCENT": percent, "BATON_COMPACT": "never"}
    settings.cache_clear()
    ledger_settings.tell(conn)
    place = lay_out(sample)
    model.task = TASKS["few"]
    model.files = candidates(place, model.task.sizes)
    whose = {"project": sample, "user": "bench"}
    for n in range(updates + 1):
        prompt = f"[update {n}] Change what the task queue does, as was agreed: part {n}."
        check = {"check": CHECK.format(n=n)} if n else {}
        kind = Update if n else Build
        asked = enqueue(conn, kind.model_validate(whose | {"prompt": prompt} | check))
        ran = run(asked.id, do_build)
        if ran.state != "done":
            raise SystemExit(f"Update {n} of {sample} came to nothing: {ran.error}")
        jobs.cancel(conn, asked.id)  # what would follow
