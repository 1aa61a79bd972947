"""`make bench`: what Baton itself costs, beside what one would take instead, in the same run.

The agent does nothing here (scripted), so what is left is the ledger, the transcript store, the
workspace's repository, Celery and Redis. Every candidate works off its chains with two slots, after
all of them were asked for; its start is not counted. Candidates take turns, so ratios within a run
hold from machine to machine; absolute figures do not. Prints a table, then a line of JSON for each.
"""

import json
import os
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from config.settings import settings
from db.core.migrate import migrate
from dev.bench.candidates import BASE, Candidate, Figures, candidates, measure
from dev.bench.latency import latencies
from dev.stack.services import services
from dev.stack.up import EXPECTED

REPETITIONS = 3
ASKED = 2000  # one after the other, for the latency


def main(root: Path) -> int:
    """Print the figures; data lies in a directory of its own that is removed again."""
    console = Console(highlight=False)
    (root / ".baton").mkdir(exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(dir=root / ".baton", prefix="bench-") as place,
            services(Path(place), database_url="", redis_url="") as running,
        ):
            migrate(running.database_url)
            os.environ |= {
                "DATABASE_URL": running.database_url,
                "REDIS_URL": running.redis_url,
                "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",  # nobody asks it
                "BATON_SANDBOX": "off",
                "BATON_SLOTS": "2",
                "BATON_COMPACT": "never",
                "BATON_LOG_LEVEL": "warning",
                "BATON_WORKSPACES": f"{place}/workspaces",
                "BATON_AGENT_HOME": f"{place}/agent",
                "BATON_EGRESS_HOME": f"{place}/egress",
            }
            settings.cache_clear()
            _tell(console, Path(place))
    except EXPECTED as exc:
        console.print(str(exc), markup=False)
        return 1
    return 0


def _tell(console: Console, place: Path) -> None:
    here, missing = candidates(place)
    for name, package in missing:
        console.print(
            f"LEFT OUT: {name}: {package} is not installed (pip install 'baton-jobs[bench]').",
            markup=False,
        )
    load = os.getloadavg()[0]
    found: dict[str, list[Figures]] = {each.name: [] for each in here}
    for _ in range(REPETITIONS):
        for each in here:
            found[each.name].append(measure(each, place))
    ratios = {
        name: [one.rate / base.rate for one, base in zip(took, found[BASE], strict=True)]
        for name, took in found.items()
    }
    console.print(_table(here, found, ratios))
    ms = latencies(place, ASKED)
    p50, p99 = ms[len(ms) // 2], ms[int(len(ms) * 0.99)]
    console.print(
        f"Asked (with a ring) to committed, one chat after the other: p50 {p50:.1f} ms, p99"
        f" {p99:.1f} ms of {ASKED}. Load before: {load:.1f}."
    )
    for each in here:
        took = found[each.name]
        line = {
            "name": each.name,
            "ratio_to_celery": round(statistics.median(ratios[each.name]), 3),
            "chains_per_s": round(statistics.median(one.rate for one in took), 1),
            "chains": each.chains,
            "repetitions": REPETITIONS,
        }
        print(json.dumps(line), flush=True)  # noqa: T201 - for programs: not as wide as a page
    chat = {"name": "Baton, chat", "p50_ms": round(p50, 1), "p99_ms": round(p99, 1)}
    print(json.dumps(chat | {"asked": ASKED, "load": round(load, 1)}), flush=True)  # noqa: T201


def _table(
    here: list[Candidate], found: dict[str, list[Figures]], ratios: dict[str, list[float]]
) -> Table:
    table = Table(
        title=f"Chains of three steps, median (min to max) of {REPETITIONS}, by turns"
    )
    for column in ("", "chains/s", "ratio to plain Celery"):
        table.add_column(column)
    for each in here:
        rates = [one.rate for one in found[each.name]]
        table.add_row(each.name, _spread(rates), _spread(ratios[each.name]))
    return table


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"
