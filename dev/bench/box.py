"""`baton bench box`: what holding the agent costs a turn.

    off    the keeper starts the CLI as it is
    box    the keeper starts it in its box: namespaces, mounts, filter, another user, a bridge

Whole chat turns of the real CLI by turns, on the stand-in in a process of its own, which takes no
time to think. Both ask their model through the egress proxy (`baton bench egress` has that). Beside
it the try from inside, which a worker makes once when it starts.
"""

import os
import resource
import statistics
import time
from pathlib import Path

import psycopg
from rich.table import Table

from config.settings import settings
from dev.bench.egress import proxy
from dev.bench.place import Place, at_place
from dev.bench.resume import model
from tasks.chat_plan import do_chat_plan
from worker.client import ChatPlan, enqueue
from worker.job.run import run
from worker.sandbox import box

TIMES = 15
MODES = ("off", "auto")

Took = tuple[float, float]  # milliseconds: by the clock, and of processors


def main(root: Path) -> int:
    """Print the figures."""
    return at_place(root, _tell)


def _tell(place: Place) -> None:
    with model(place.path) as url:
        place.enter(url)
        with proxy():
            place.console.print(_table(*_probed(), place.database_url))


def _probed() -> Took:
    """The try from inside; says why where no box can be had here."""
    _mode("auto")
    began, used = time.perf_counter(), _used()
    found = box.found()
    took = (time.perf_counter() - began) * 1000, _used() - used
    if found.way is None:
        raise SystemExit(f"There is no box here: {found.why}")
    return took


def _table(clock: float, used: float, database_url: str) -> Table:
    took: dict[str, list[Took]] = {mode: [] for mode in MODES}
    with psycopg.connect(database_url, autocommit=True) as conn:
        for mode in MODES:  # so that both have been started once
            _turn(conn, mode, ChatPlan(project="bench", user="bench", prompt="say hello"))
        for _ in range(TIMES):
            for mode in MODES:
                asked = ChatPlan(project="bench", user="bench", prompt="say hello")
                took[mode].append(_turn(conn, mode, asked))
    title = f"A whole turn, ms, median (min to max) of {TIMES}; load {os.getloadavg()[0]:.1f}"
    table = Table(title=title)
    for column in ("", "by the clock", "of processors"):
        table.add_column(column)
    for mode in MODES:
        table.add_row(mode, *(_spread([one[which] for one in took[mode]]) for which in (0, 1)))
    table.add_row("more, of pairs", *(f"{_more(took, which):.0f}" for which in (0, 1)))
    table.add_row("the try from inside, once", f"{clock:.0f}", f"{used:.0f}")
    return table


def _turn(conn: psycopg.Connection, mode: str, asked: ChatPlan) -> Took:
    _mode(mode)
    job = enqueue(conn, asked).id
    began, used = time.perf_counter(), _used()
    ran = run(job, do_chat_plan)
    if ran.state != "done":
        raise SystemExit(f"The turn came to nothing: {ran.error}")
    return (time.perf_counter() - began) * 1000, _used() - used


def _mode(mode: str) -> None:
    os.environ["BATON_SANDBOX"] = mode
    settings.cache_clear()


def _used() -> float:
    """Milliseconds of processors, of this process and of all that it started and that has ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both) * 1000


def _more(took: dict[str, list[Took]], which: int) -> float:
    off, held = (took[mode] for mode in MODES)
    return statistics.median(b[which] - a[which] for a, b in zip(off, held, strict=True))


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"
