"""A thousand kills: pool children are SIGKILLed at random moments while chains run.

Most meet the agent of dev/agents/deeds.py, which is quick and writes down what it is told to; the
rest meet the real CLI in the middle of a turn.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from uuid import UUID

import pytest

from dev.stack.processes import Process, alive
from tests.acceptance.outside import Baton, baton_up
from tests.conftest import keys_without_end
from tests.faults.agents import children, live_agents, watching
from tests.faults.conftest import Tally
from tests.faults.history import broken, heard_by
from tests.faults.reading import Request, heard_by_deeds, history_of, texts
from tests.faults.strikes import RELAY, WORKERS
from tests.invariants import violations
from tests.waiting import wait_until
from worker.client import Build

# Seconds; half of the reruns begin sooner. (Where ten are killed a second they wait for a slot.)
BEGUN_AGAIN = 3.0
IDLE = 0.05  # share of kills that meet any child, also one that has nothing to do
WORKERS_AT_ONCE = 3  # each starts its own dead children again


@dataclass
class Field:
    """Projects with always something to do, and what was asked of them."""

    baton: Baton
    projects: list[str]
    draw: random.Random
    prompt: Callable[[int], tuple[str, tuple[str, str] | None]]
    requests: list[Request] = field(default_factory=list[Request])
    kills: list[tuple[UUID, float]] = field(default_factory=list[tuple[UUID, float]])
    idle: int = 0  # kills of any child
    at_any: bool = False  # the next one is

    def feed(self) -> None:
        """Ask for more where nothing is open."""
        open_ = {
            row["project_id"]
            for row in self.baton.rows("select project_id from jobs where finished_at is null")
        }
        for project in self.projects:
            if project not in open_:
                prompt, writes = self.prompt(len(self.requests))
                job = self.baton.ask(Build(project=project, user="ann", prompt=prompt))
                self.requests.append(Request(project, job, prompt, writes))

    def kill_one(self, *, with_agent: bool) -> bool:
        """SIGKILL a pool child; whether there was one to be killed."""
        if self.at_any and not with_agent:
            return self._kill_any()
        rows = self.baton.rows(
            "select id, attempt::text, pid, pid_started from jobs where state = 'running'"
        )
        if with_agent:
            at_work = {attempt for attempt, _ in live_agents()}
            rows = [row for row in rows if row["attempt"] in at_work]
        if not rows:
            return False
        row = self.draw.choice(rows)
        child = Process(row["pid"], row["pid_started"])
        if not alive(child):
            return False
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False  # it has just gone
        self.kills.append((row["id"], time.time()))
        return True

    def _kill_any(self) -> bool:
        leaders = [self.baton.up.pid(name) for name in _names()]
        mine = [child for leader in leaders if leader for child in children(leader)]
        if not mine:
            return False
        try:
            os.kill(self.draw.choice(mine).pid, signal.SIGKILL)
        except ProcessLookupError:
            return False  # it has just gone
        self.idle += 1
        return True

    def begun_again(self) -> list[float]:
        """Seconds from each kill of a runner to the claim of the next attempt at its job."""
        found = list[float]()
        for job, at in self.kills:
            (row,) = self.baton.rows(
                """
                select extract(epoch from min(s.at))::float8 - %s as seconds
                  from events s where s.job_id = %s and s.type = 'job.started'
                   and s.at > (select min(r.at) from events r where r.job_id = s.job_id
                                  and r.type = 'job.rescued' and r.at > to_timestamp(%s))
                """,
                at,
                job,
                at,
            )
            if row["seconds"] is not None:
                found.append(row["seconds"])
        return found


def kill(field: Field, times: int, *, pause: float, with_agent: bool) -> None:
    """So many kills, with random pauses of `pause` seconds in the mean, while work goes on."""
    left, due = times, time.monotonic()

    def step() -> bool:
        nonlocal left, due
        field.feed()
        if time.monotonic() >= due and field.kill_one(with_agent=with_agent):
            left -= 1
            field.at_any = field.draw.random() < IDLE
            due = time.monotonic() + field.draw.expovariate(1 / pause)
        return left == 0

    wait_until(step, timeout=60 + times, description=f"{times} kills")
    wait_until(
        lambda: not field.baton.rows("select 1 from jobs where finished_at is null limit 1"),
        timeout=120,
        description="all jobs to end",
    )


def told(field: Field, tally: Tally) -> None:
    """The tally's figures."""
    tally.ran(len(field.kills) + field.idle)
    again = field.begun_again()
    for seconds in again:
        tally.recovered(seconds)
    tally.note = f"{len(field.requests)} chains, {len(again)} attempts rescued"
    tally.note += f", {field.idle} kills of any child" if field.idle else ""
    assert again, "no kill met a job"


@pytest.mark.long  # the short run of the crash points kills workers at each of them
@pytest.mark.timeout(2400)
def test_nothing_is_lost_or_done_twice_when_workers_are_killed(
    tmp_path: Path, tally: Tally, seed: int
):
    tally.fault = "SIGKILL of pool children"
    tally.simulated = "agent"
    env = {"BATON_STRIKES": str(tmp_path), "BATON_SCRIPTED": "build,metadata"}
    with baton_up(tmp_path, commands=_commands(4), **env, **_settings(4)) as baton:
        field = Field(
            baton,
            [baton.project("kills") for _ in range(12)],
            random.Random(seed),
            lambda number: (f"note log.txt: {number}", None),
        )
        kill(field, 940, pause=0.05, with_agent=False)
        told(field, tally)
        heard = heard_by_deeds(tmp_path / "deeds")
        tally.check(broken(history_of(baton.conn, field.requests, heard)))
        tally.check(_wrong_logs(field))
        tally.check(_of_the_stack(baton))


@pytest.mark.long  # the short run of the crash points kills the CLI too
@pytest.mark.timeout(2400)
def test_nothing_is_lost_or_done_twice_when_workers_are_killed_in_mid_turn(
    tmp_path: Path, tally: Tally, seed: int
):
    tally.fault = "SIGKILL of pool children, the CLI in mid-turn"
    env = {"BATON_STRIKES": str(tmp_path)}
    with baton_up(tmp_path, commands=_commands(2), **env, **_settings(2)) as baton:
        field = Field(
            baton,
            [baton.project("kills") for _ in range(4)],
            random.Random(seed),
            lambda n: (f"write f{n}.txt: {n}\nsleep 0.2\nsay {n}", (f"f{n}.txt", str(n))),
        )
        with watching() as agents:
            kill(field, 60, pause=0.5, with_agent=True)
        told(field, tally)
        assert median(tally.recoveries) <= BEGUN_AGAIN
        history = history_of(baton.conn, field.requests, heard_by(baton.model.requests))
        for project in field.projects:
            history.files[project] = texts(baton.workspace(project))
        tally.check(broken(history))
        tally.check(agents.violations(baton.conn) + agents.left(baton.conn))
        tally.check(_of_the_stack(baton))


def _commands(slots: int) -> dict[str, str]:
    workers = {name: f"{WORKERS} -n {name}@%h --concurrency {slots}" for name in _names()}
    return {**workers, "relay": RELAY}


def _names() -> list[str]:
    return ["worker", *(f"worker{number}" for number in range(1, WORKERS_AT_ONCE))]


def _settings(slots: int) -> dict[str, str]:
    return {
        "BATON_SLOTS": str(slots),
        "BATON_COMPACT": "never",
        "BATON_RESCUE_LIMIT": "100000",
        "BATON_RESET_AFTER_TURNS": "100000",
    }


def _wrong_logs(field: Field) -> list[str]:
    """Each project's log has a line per build that was asked for, in order."""
    found = list[str]()
    for project in field.projects:
        wanted = [one.prompt for one in field.requests if one.project == project]
        lines = texts(field.baton.workspace(project)).get("log.txt", "").splitlines()
        if [f"note log.txt: {line}" for line in lines] != wanted:
            found.append(f"{project}: its log has {lines}, and not {wanted}")
    return found


def _of_the_stack(baton: Baton) -> list[str]:
    return [
        *violations(baton.conn, ended=True, stored=True),
        *baton.in_step.wrong,
        *(f"14: {key} has no TTL" for key in keys_without_end(baton.up.redis_url)),
    ]
