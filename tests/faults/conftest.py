"""The fault suite: what is struck, how often, and what came of it, told in a table.

`make test` runs each fault a few times, `make faults` (`--long`) as often as its figures
need. What is drawn at random comes from a seed, which is printed; `--seed N` repeats it.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from tests.running import at_work as at_work  # a fixture

TOLD = "fault"  # the property of a test's report that carries its tally


@dataclass
class Tally:
    """What one test tells of its fault. `simulated` says which part is not the real one."""

    fault: str = ""
    runs: int = 0
    broken: list[str] = field(default_factory=list[str])
    recoveries: list[float] = field(default_factory=list[float])  # seconds
    seed: int | None = None
    simulated: str = ""
    note: str = ""

    def ran(self, times: int = 1) -> None:
        """The fault was struck so often."""
        self.runs += times

    def recovered(self, seconds: float) -> None:
        """So long it took until work went on."""
        self.recoveries.append(seconds)

    def check(self, violations: list[str]) -> None:
        """Fails the test with the violations, and with the seed that repeats them."""
        self.broken += violations
        assert not violations, f"{self.fault} (seed {self.seed}): " + "; ".join(violations[:5])


@pytest.fixture
def tally(request: pytest.FixtureRequest, record_property: Any) -> Iterator[Tally]:
    """The test's line in the table; named after the test unless it says otherwise."""
    told = Tally(fault=request.node.name.removeprefix("test_").replace("_", " "))
    yield told
    record_property(TOLD, asdict(told))


@pytest.fixture
def seed(request: pytest.FixtureRequest, tally: Tally) -> int:
    """What to draw from."""
    given: int | None = request.config.getoption("--seed", default=None)
    tally.seed = random.randrange(2**32) if given is None else given
    return tally.seed


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table: fault, runs, invariants held, recovery, seed; and what this machine cannot run."""
    failed = {
        r.nodeid for kind in ("failed", "error") for r in terminalreporter.stats.get(kind, [])
    }
    lines = [
        (Tally(**value), report.nodeid not in failed)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "teardown"
        for name, value in report.user_properties
        if name == TOLD
    ]
    left_out = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if report.nodeid.startswith("tests/faults/")
    ]
    if not lines and not left_out:
        return
    table = Table(title="Faults", title_justify="left")
    for column in (
        "fault",
        "runs",
        "invariants",
        "p50 s",
        "p99 s",
        "seed",
        "simulated",
        "note",
    ):
        table.add_column(column)
    for told, passed in lines:
        table.add_row(
            told.fault,
            str(told.runs),
            "held" if passed and not told.broken else "BROKEN",
            _quantile(told.recoveries, 0.5),
            _quantile(told.recoveries, 0.99),
            "" if told.seed is None else str(told.seed),
            told.simulated,
            told.note,
        )
    for report in left_out:
        name, why = report.nodeid.rpartition("::")[2], report.longrepr[2]
        table.add_row(name, "0", "NOT RUN", "", "", "", "", why)
    terminalreporter.section("faults")
    Console(width=150).print(table)


def _quantile(seconds: list[float], share: float) -> str:
    if not seconds:
        return ""
    ordered = sorted(seconds)
    return f"{ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.2f}"
