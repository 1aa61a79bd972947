"""The candidates of `make bench`: how each is asked, what works it off, and how quick it was."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import LiteralString
from uuid import uuid4

import psycopg

from config.settings import settings
from dev.bench.peers import marks
from worker.client import Build, enqueue

BASE = "Celery, durable, no database"
LONGEST = 300.0  # seconds for one drain
CELERY = (sys.executable, "-m", "celery", "-A")
WORKER = ("worker", "--without-gossip", "--without-mingle", "-c", "2", "-l", "WARNING")


@dataclass(frozen=True, slots=True)
class Candidate:
    """`ask` asks for so many chains; `begin` are the commands that work them off, in an environment
    with `more` of it. `package` is what it needs, if it is not among ours."""

    name: str
    chains: int
    ask: Callable[[int], None]
    begin: Sequence[Sequence[str]]
    more: dict[str, str]
    package: str | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """How quick it was: chains a second."""

    rate: float


def candidates(place: Path) -> tuple[list[Candidate], list[tuple[str, str]]]:
    """Those that can be measured here, the base first; and of the others the name, and the
    package that is not there."""
    every = _every(place)
    here = [each for each in every if not each.package or find_spec(each.package)]
    return here, [(each.name, str(each.package)) for each in every if each not in here]


def _every(place: Path) -> list[Candidate]:
    url = settings().database_url.get_secret_value()
    broker = settings().redis_url.get_secret_value().removesuffix("/0")
    peer = {"BENCH_MARKS": str(place / "marks"), "BENCH_REDIS": f"{broker}/5"}
    ledger = {**peer, "BENCH_REDIS": f"{broker}/6", "BENCH_DB": url}
    app = "dev.bench.peers.celery_app"
    worker = [(*CELERY, app, *WORKER)]
    dbos = "dev.bench.peers.dbos_app"
    procrastinate = "dev.bench.peers.procrastinate_app"
    ours = [
        (*CELERY, "dev.bench.worker", "worker", "-l", "WARNING"),
        (sys.executable, "-m", "worker.relay"),
    ]

    def by(module: str, env: dict[str, str], function: str = "ask") -> Callable[[int], None]:
        return lambda chains: _run(
            f"from {module} import {function}; {function}({chains})", env
        )

    return [
        Candidate(BASE, 500, by(app, peer), worker, peer),
        Candidate("Celery, naive ledger", 400, by(app, ledger), worker, ledger),
        Candidate(
            "Procrastinate",
            300,
            by(procrastinate, ledger),
            [(sys.executable, "-m", "procrastinate", f"--app={procrastinate}.app", "worker")],
            {**ledger, "PROCRASTINATE_WORKER_CONCURRENCY": "2"},
            "procrastinate",
        ),
        Candidate(
            "DBOS", 300, lambda _: None, [(sys.executable, "-m", dbos, "300")], ledger, "dbos"
        ),
        Candidate("Baton, ledger only", 200, _ask, ours, {"BENCH_BATON": "ledger"}),
        Candidate("Baton", 100, _ask, ours, {"BENCH_BATON": "whole"}),
    ]


def _run(text: str, env: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", text], env={**os.environ, **env}, check=True)


def _ask(chains: int) -> None:
    """Chains of projects of their own."""
    run = uuid4().hex[:8]
    with psycopg.connect(settings().database_url.get_secret_value()) as conn:
        for chain in range(chains):
            enqueue(conn, Build(project=f"bench-{run}-{chain}", user="bench", prompt="go"))


def measure(each: Candidate, place: Path) -> Figures:
    """Ask, begin, and wait until all is worked off."""
    file = place / "marks"
    file.unlink(missing_ok=True)
    each.ask(each.chains)
    with (
        _ours()
        if each.ask is _ask
        else nullcontext(partial(_theirs, file, each.chains)) as look,
        running(each.begin, each.more, place / "log"),
    ):
        until = time.monotonic() + LONGEST
        while (took := look()) is None:
            if time.monotonic() > until:
                raise SystemExit(f"{each.name} is not through after {LONGEST:g} s: {place}/log")
            time.sleep(0.05)
    return Figures(each.chains / took)


def _theirs(file: Path, chains: int) -> float | None:
    found = marks.read(file)
    if len(found) < chains * marks.STEPS:
        return None
    return (max(found) - min(found)) / 1e9


@contextmanager
def _ours() -> Generator[Callable[[], float | None]]:
    """What says how long it took, from the first claim to the last commit of what was asked for
    last. It looks by one probe of an index on one connection: the server that is measured is
    asked, and a new connection for each look took it as long as a job."""
    with psycopg.connect(
        settings().database_url.get_secret_value(), autocommit=True, prepare_threshold=0
    ) as conn:

        def look() -> float | None:
            if conn.execute(OPEN).fetchone() is not None:
                return None
            row = conn.execute(TOOK).fetchone()
            return row[0] if row else None

        yield look


OPEN: LiteralString = "select from jobs where finished_at is null order by pos limit 1"
TOOK: LiteralString = """
    select extract(epoch from max(finished_at) - min(started_at))::float8
      from jobs where split_part(project_id, '-', 2) = (
        select split_part(project_id, '-', 2) from jobs order by created_at desc, pos desc limit 1)"""


@contextmanager
def running(
    commands: Sequence[Sequence[str]], more: dict[str, str], log: Path
) -> Generator[None]:
    """These run until the block ends, each with all that it has begun."""
    root, begun = str(Path(__file__).parents[2]), list[subprocess.Popen[bytes]]()
    env = {
        **os.environ,
        **more,
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", "")))),
    }
    with log.open("ab") as told:
        try:
            for command in commands:
                begun.append(
                    subprocess.Popen(
                        command, env=env, stdout=told, stderr=told, start_new_session=True
                    )
                )
            yield
        finally:
            for process in begun:
                process.send_signal(signal.SIGTERM)
            for process in begun:
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
