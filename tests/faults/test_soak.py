"""The soak: a seeded nemesis strikes a whole stack at random while chains of many projects run.

Then it is healed, all that was asked for ends, each project is asked one thing more, and
the checker compares what producers were told with what the model heard and what lies in
the workspaces.
"""

import random
import time
from collections.abc import Generator
from contextlib import chdir, contextmanager
from pathlib import Path

import psycopg
import pytest

from config.settings import settings
from dev.stack.processes import free_port
from dev.stack.up import Stack, stack
from dev.standin.server import Standin, standin
from tests.conftest import keys_without_end
from tests.faults.agents import watching
from tests.faults.conftest import Tally
from tests.faults.history import History, broken, heard_by
from tests.faults.nemesis import Nemesis, schedule
from tests.faults.producers import Producers
from tests.faults.reading import history_of, texts
from tests.faults.strikes import WORKERS
from tests.invariants import violations
from tests.waiting import wait_until

pytestmark = pytest.mark.long

PROJECTS = 8
SECONDS = 30.0  # of the storm
CALM = 240.0  # seconds within which all must have ended after it
COMMANDS = {
    "worker": f"{WORKERS} --concurrency 4",
    "egress": "python -m egress",
    "beat": "celery -A worker.app beat --loglevel INFO --scheduler celery.beat:Scheduler",
    "relay": "python -m worker.relay",
}


@contextmanager
def rig(root: Path, compact: str) -> Generator[tuple[Stack, Standin]]:
    """A stack whose database may go away: nothing here holds on to a connection."""
    with pytest.MonkeyPatch.context() as here, standin("plain", speed=0) as model, chdir(root):
        here.setattr("dev.stack.up.FLOWER_PORT", free_port())
        settings.cache_clear()
        env = {
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "stand-in",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "BATON_WORKSPACES": str(root / "workspaces"),
            "BATON_AGENT_HOME": str(root / "agent"),
            "BATON_COMPACT": compact,
            "BATON_SLOTS": "4",
            "BATON_LEASE": "4",
            "BATON_RENEW_EVERY": "0.5",
            "BATON_CANCEL_POLL": "0.2",
            "BATON_DRAIN_GRACE": "0.5",
            "BATON_BACKOFF_FIRST": "0.2",
            "BATON_IDLE_TIMEOUT": "60",
            "BATON_UPKEEP_EVERY": "5",
            # However often it is struck, a job is tried again and its session gone on from.
            "BATON_ATTEMPTS": "1000",
            "BATON_RESCUE_LIMIT": "1000",
            "BATON_RESUME_FAILURES": "1000",
            "BATON_RESET_AFTER_TURNS": "1000",
        }
        with stack(root, env, commands=COMMANDS) as up:
            yield up, model


@pytest.mark.timeout(1200)
def test_a_storm_of_faults_loses_nothing_and_does_nothing_twice(
    tmp_path: Path, tally: Tally, seed: int, monkeypatch: pytest.MonkeyPatch
):
    tally.fault = "nemesis soak"
    monkeypatch.setattr("dev.standin.model.REMEMBERED", 1_000_000)
    with rig(tmp_path, "always") as (up, model), watching() as agents:
        projects = [f"soak-{number}" for number in range(PROJECTS)]
        workspaces = tmp_path / "workspaces"
        draw = random.Random(seed)
        producers = Producers(up.database_url, workspaces, projects, draw, 2)
        nemesis = Nemesis(up, producers.cancel)
        storm(nemesis, producers, seed, SECONDS)
        tally.ran(len(nemesis.struck))
        tally.recovered(heal(nemesis, producers))
        seal(producers)
        producers.close()
        with psycopg.connect(up.database_url, autocommit=True) as conn:
            history = history_of(conn, producers.requests, heard_by(model.requests))
            history.files = {p: texts(workspaces / p) for p in projects}
            tally.note = told(history)
            tally.check(broken(history))
            tally.check(in_vain(history))
            tally.check(violations(conn, ended=True, stored=True))
            tally.check(agents.violations(conn) + agents.left(conn))
        tally.check([f"14: {key} has no TTL" for key in keys_without_end(up.redis_url)])


def storm(nemesis: Nemesis, producers: Producers, seed: int, seconds: float) -> None:
    """Carry the schedule out, while producers ask for work."""
    strikes = schedule(seed, seconds)
    due = time.monotonic() + strikes[0].after

    def step() -> bool:
        nonlocal due
        nemesis.let_go()
        keep_starting(nemesis.up)
        producers.ask()
        if strikes and time.monotonic() >= due:
            nemesis.strike(strikes.pop(0))
            due += strikes[0].after if strikes else 0
        return not strikes

    wait_until(step, timeout=seconds * 3 + 60, description="the storm to end")


def keep_starting(up: Stack) -> None:
    """No growing pauses before a start: what dies here was killed."""
    for child in up.supervisor.children.values():
        child.deaths, child.due = 0, 0.0


def heal(nemesis: Nemesis, producers: Producers) -> float:
    """Let everything go on, send what was not acknowledged, and wait; the seconds it took."""
    nemesis.let_go(all_of_them=True)
    began = time.monotonic()

    def calm() -> bool:
        keep_starting(nemesis.up)
        for ask in list(producers.unsure.values()):
            producers.send(ask)
        return not producers.unsure and producers.over()

    wait_until(calm, timeout=CALM, description="all that was asked for to end")
    return time.monotonic() - began


def seal(producers: Producers) -> None:
    """One more build and a question for each project: they show what is left of the past."""
    for project in producers.projects:
        assert producers.send(producers.build(project, last=True))
        assert producers.send(producers.chat(project))
    wait_until(producers.over, timeout=CALM, description="the last requests to end")


def in_vain(history: History) -> list[str]:
    """Requests that failed: every fault here is one that may be waited out."""
    return [
        f"{one.project}: request {one.job} is {one.state}"
        for one in history.asked
        if one.state not in ("done", "cancelled")
    ]


def told(history: History) -> str:
    done = sum(one.state == "done" for one in history.asked)
    turns = sum(map(len, history.steps.values()))
    return f"{len(history.asked)} requests, {done} done, {turns} turns committed"
