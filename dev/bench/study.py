"""`make study`: what updates of a real code base cost, by how sessions are gone on from.

    fresh          each update begins a session of its own, with the digest
    resume         the session is gone on from, however long it is, and never compacted
    resume+compact the same, and each chain ends with a compaction
    ours           Baton's own policy, as it is set by default: a conversation is kept
    cheapest       the same with BATON_LONG_SESSIONS=cheapest: money decides

The CLI is the real one, the workspace Celery's source as installed here (some 47,000 lines). The
model is simulated (reader.py), its cache and its clock too: it takes no time, and a gap between two
updates passes at once. Prices are list prices (worker/session/prices.py), for an Opus.

Each chain is whole: update, recommendations, documentation, compaction. One JSON object a chain
goes to .baton/study.jsonl; dev/bench/plots.py draws them.
"""

import importlib.util
import json
import os
import shutil
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection
from rich.table import Table

from config.settings import settings
from db.core import ledger_settings
from dev.bench.egress import proxy
from dev.bench.legs import Chain, Leg, weight
from dev.bench.place import Place, at_place
from dev.bench.reader import TASKS, Reader, candidates, scenario
from dev.standin.server import Standin
from worker.session import prices

GAPS = {"1m": 60.0, "10m": 600.0, "2h": 7200.0, "1d": 86_500.0}
PLAIN = {
    "BATON_PROMPT_CACHE": "5m",
    "BATON_STALE_AFTER": "864000",
    "BATON_RESET_AFTER_TURNS": "1000000",
}
POLICIES: dict[str, dict[str, str]] = {
    "fresh": {"BATON_RESUME_ENABLED": "false", "BATON_COMPACT": "never", **PLAIN},
    "resume": {"BATON_COMPACT": "never", **PLAIN},
    "resume+compact": {"BATON_COMPACT": "always", **PLAIN},
    "ours": {},
    "cheapest": {"BATON_LONG_SESSIONS": "cheapest"},
}
OUTPUT = 5.0  # what a token of an answer weighs
MODEL = "claude-opus"
WINDOW = 10**6  # tokens: nothing is refused as too long

Row = dict[str, Any]


@dataclass
class Clock:
    """The stand-in's: the machine's, and what was skipped."""

    skipped: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


def main(
    root: Path,
    updates: int = 4,
    gaps: str = "",
    policies: str = "",
    task: str = "few",
    minutes: int = 600,
) -> int:
    """Run the cells, print them, and leave their rows in .baton/study.jsonl."""
    told = root / ".baton" / "study.jsonl"
    wanted = gaps.split(",") if gaps else list(GAPS)
    tried = policies.split(",") if policies else list(POLICIES)
    clock, until = Clock(), time.monotonic() + 60 * minutes
    model = Reader(scenario(), clock=clock, limit=WINDOW)

    def tell(place: Place) -> None:
        rows = list[Row]()
        with asking(model, place) as conn:
            for gap, policy in [(gap, policy) for gap in wanted for policy in tried]:
                if time.monotonic() < until:
                    cell = _Cell(conn, model, clock, gap, policy, task)
                    rows += cell.run(updates, lambda row: _append(told, row))
        place.console.print(_table(rows))

    return at_place(root, tell)


@contextmanager
def asking(model: Reader, place: Place) -> Generator[Connection]:
    """This process is a worker there, and its agents ask that model. Yields a connection."""
    with Standin(model, port=0, speed=0) as serving:
        place.enter(serving.url)
        with proxy(), psycopg.connect(place.database_url, autocommit=True) as conn:
            yield conn


def _append(file: Path, row: Row) -> None:
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")


def lay_out(project: str) -> Path:
    """The project's workspace, with the code base in it."""
    place = settings().workspaces / project
    found = importlib.util.find_spec("celery")
    assert found, "Celery is one of our dependencies"
    assert found.origin
    shutil.copytree(
        Path(found.origin).parent, place, ignore=shutil.ignore_patterns("__pycache__")
    )
    return place


class _Cell:
    """One project: its updates, a gap apart, under one policy."""

    def __init__(
        self, conn: Connection, model: Reader, clock: Clock, gap: str, policy: str, task: str
    ) -> None:
        self._conn, self._model, self._clock = conn, model, clock
        self._gap, self._policy, self._task = gap, policy, task
        self._project = f"{policy.replace('+', '-')}-{gap}-{time.time_ns()}"

    def run(self, updates: int, keep: Callable[[Row], None]) -> list[Row]:
        self._configure()
        self._clock.skipped += GAPS["1d"]  # what other cells left in the cache is gone
        chain = Chain(self._conn, lambda: self._model.requests, self._project)
        rows = list[Row]()
        for number in range(updates + 1):
            began, before = time.monotonic(), len(chain.legs)
            (chain.update if number else chain.build)(_prompt(number))
            row = self._row(number, chain.legs[before:], time.monotonic() - began)
            keep(row)
            rows.append(row)
            self._rest()
        return rows

    def _configure(self) -> None:
        for name in {name for each in POLICIES.values() for name in each}:
            os.environ.pop(name, None)
        os.environ |= POLICIES[self._policy]
        settings.cache_clear()
        ledger_settings.tell(self._conn)
        place = lay_out(self._project)
        self._model.task = TASKS[self._task]
        self._model.files = candidates(place, self._model.task.sizes)

    def _rest(self) -> None:
        """The gap passes, in the stand-in's cache and in the ledger."""
        self._clock.skipped += GAPS[self._gap]
        self._conn.execute(
            """
            update project_ai_session_metrics
               set created_at = created_at - make_interval(secs => %(gap)s),
                   last_used_at = last_used_at - make_interval(secs => %(gap)s)
             where project_id = %(project)s
            """,
            {"gap": GAPS[self._gap], "project": self._project},
        )

    def _row(self, number: int, legs: list[Leg], seconds: float) -> Row:
        asked = [seen for leg in legs for seen in leg.asked]
        output = sum(int((seen.usage or {}).get("output_tokens", 0)) for seen in asked)
        tokens = sum(weight(seen) for seen in asked) + OUTPUT * output
        return {
            "gap": self._gap,
            "policy": self._policy,
            "task": self._task,
            "update": number,
            "weight": round(tokens),
            "usd": prices.usd(tokens, MODEL),
            "requests": len(asked),
            "seconds": round(seconds, 1),
            "context": legs[0].context,
            "read": legs[0].read,
            "weights": {leg.name: round(leg.weight) for leg in legs},
        }


def _prompt(number: int) -> str:
    return f"[update {number}] Change what the task queue does, as was agreed: part {number}."


def _table(rows: list[Row]) -> Table:
    table = Table(title="Updates of one project, without the first build; USD are list prices")
    for column in ("gap", "policy", "updates", "USD", "to fresh", "requests", "seconds"):
        table.add_column(column, justify="left" if column in ("gap", "policy") else "right")
    for gap in dict.fromkeys(row["gap"] for row in rows):
        sums = {p: _sum(rows, gap, p) for p in POLICIES}
        base = sums["fresh"][1]
        for policy, (count, usd, requests, seconds) in sums.items():
            ratio = f"{usd / base:.2f}" if base else ""
            figures = (str(count), f"{usd:.3f}", ratio, str(requests), f"{seconds:.0f}")
            table.add_row(gap, policy, *figures)
        table.add_section()
    return table


def _sum(rows: list[Row], gap: str, policy: str) -> tuple[int, float, int, float]:
    of = [r for r in rows if (r["gap"], r["policy"]) == (gap, policy) and r["update"]]
    usd, requests = sum(r["usd"] for r in of), sum(r["requests"] for r in of)
    return len(of), usd, requests, sum(r["seconds"] for r in of)
