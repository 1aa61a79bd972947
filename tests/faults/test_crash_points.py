"""The crash-point matrix: at each named point a worker is killed, deployed over, paused past
its lease, or meets an exception, on a job's first attempt and on its retry.

Each cell is a chain of its own on a real stack, and all are in work side by side. A build's
turn is the real CLI's if it is struck in its turn, and at each point of a worker at least for
the first SIGKILL; every other turn is an agent's without one.
"""

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from dev.stack.processes import look
from tests.acceptance.outside import Baton, baton_up
from tests.conftest import keys_without_end
from tests.faults.agents import Agents, watching
from tests.faults.cells import (
    LATER,
    PATIENCE,
    RELAY_POINTS,
    SCRIPTED,
    WORKER_POINTS,
    Case,
    Cell,
    matrix,
)
from tests.faults.conftest import Tally
from tests.faults.history import heard_by, interleaved
from tests.faults.later_cells import Later
from tests.faults.strikes import RELAY, WORKERS, Strikes, Struck
from tests.invariants import violations
from tests.waiting import wait_until
from worker.client import ChatPlan

WORKERS_AT_ONCE = 5  # of one slot each: a deploy of one leaves the others alone
LEASE = 4  # seconds
PAUSED_AT_ONCE = 3  # somebody must be there to take over
SHORT = 2  # cells of the short run
RELAYS = "relay"  # whose strikes they are


@pytest.fixture(scope="module")
def stack_of_workers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Baton, Strikes]]:
    """Workers of one slot each, and relays, that take orders."""
    root = tmp_path_factory.mktemp("points")
    strikes = Strikes(root / "strikes")
    strikes.place.mkdir()
    names = ["worker", *(f"worker{number}" for number in range(1, WORKERS_AT_ONCE))]
    commands = {name: f"{WORKERS} -n {name}@%h" for name in names}
    commands |= {"relay": RELAY, "relay1": RELAY}  # one may be paused
    with baton_up(
        root,
        commands=commands,
        BATON_STRIKES=str(strikes.place),
        BATON_SCRIPTED=f"metadata,{SCRIPTED}",
        BATON_SLOTS="1",
        BATON_COMPACT="never",
        BATON_LEASE=str(LEASE),
        BATON_DRAIN_GRACE="0.3",
        BATON_RESCUE_LIMIT="10",
    ) as baton:
        yield baton, strikes


@pytest.mark.timeout(3000)
def test_a_chain_ends_well_wherever_its_worker_is_struck(
    stack_of_workers: tuple[Baton, Strikes], tally: Tally, seed: int, long: bool
):
    tally.fault = "crash points of a worker"
    baton, strikes = stack_of_workers
    cells = matrix(WORKER_POINTS)
    cells = random.Random(seed).sample(cells, len(cells) if long else SHORT)
    scripted = sum(cell.scripted for cell in cells)
    tally.simulated = f"agent of {scripted} builds, struck outside of a turn, and of metadata"
    with watching() as agents:
        cases = run_all(baton, strikes, cells)
        wrong = [text for case in cases for text in case.wrong()]
        again = [case for case in cases if case.asked_again()]
        wait_until(
            lambda: all(case.ended() for case in again),
            timeout=120,
            description="the builds after the failed ones",
        )
    tally.ran(len(cases))
    for case in cases:
        if (seconds := case.recovery()) is not None:
            tally.recovered(seconds)
    tally.check(wrong + [text for case in again for text in case.wrong_again()])
    tally.check(of_the_stack(baton, agents))
    tally.check([text for case in cases for text in case.left_over()])


@pytest.mark.long  # the short run kills relays in transport/test_periodic.py
@pytest.mark.timeout(1200)
def test_a_chain_ends_well_wherever_a_relay_is_struck(
    stack_of_workers: tuple[Baton, Strikes], tally: Tally, seed: int
):
    tally.fault, tally.simulated = "crash points of a relay", "agent"
    baton, strikes = stack_of_workers
    cells = matrix(RELAY_POINTS)
    with watching() as agents:
        for cell in random.Random(seed).sample(cells, len(cells)):
            case = strike_relay(baton, strikes, cell)
            tally.ran()
            if (seconds := case.recovery()) is not None:
                tally.recovered(seconds)
            wrong = case.wrong() + case.left_over()
            tally.check([f"relay, {cell}: {text}" for text in wrong])
    tally.check(of_the_stack(baton, agents))


def strike_relay(baton: Baton, strikes: Strikes, cell: Cell) -> Case:
    """Strike a relay while a chain runs whose worker dies, so that there is something to
    rescue too, and for a retry the second time. One that was paused goes on at the end."""
    before = [(cell.point, "none")] if cell.retried else []
    strikes.order(RELAYS, [*before, (cell.point, cell.fault)])
    died = Cell("turn.recorded", "kill", cell.retried)
    case = Case(died, baton, strikes, scripted=True)

    def over() -> bool:
        keep_starting(baton)
        return case.over() and not strikes.left(RELAYS)

    wait_until(over, timeout=PATIENCE, description=f"{cell} (a relay)")
    struck = strikes.struck(RELAYS)[-1]
    if cell.fault == "pause" and look(struck.pid):
        go_on_late(baton, struck)
    return case


def go_on_late(baton: Baton, relay: Struck) -> None:
    """Let a relay go on that has slept for longer than a lease, with something to be published."""
    wait_until(
        lambda: time.time() - relay.at > LEASE + 1,
        timeout=LEASE + 2,
        description="the pause to be longer than a lease",
    )
    os.kill(relay.pid, signal.SIGCONT)
    after = baton.ask(ChatPlan(project=baton.project(SCRIPTED), user="ann", prompt="go on"))
    baton.until(after, "done")


def run_all(baton: Baton, strikes: Strikes, cells: list[Cell]) -> list[Case]:
    """Run the cells side by side, as many as there are workers; returns them when all are over."""
    waiting, running, over = list(cells), list[Case](), list[Case]()

    def step() -> bool:
        keep_starting(baton)
        for case in [case for case in running if case.over()]:
            running.remove(case)
            over.append(case)
        pausing = sum(case.cell.fault == "pause" for case in running)
        for cell in waiting:
            if len(running) < WORKERS_AT_ONCE and not (
                cell.fault == "pause" and pausing >= PAUSED_AT_ONCE
            ):
                waiting.remove(cell)
                kind = Later if cell.point in LATER else Case
                running.append(kind(cell, baton, strikes, scripted=cell.scripted))
                break
        return not waiting and not running

    wait_until(step, timeout=PATIENCE + 10 * len(cells), description="the cells")
    return over


def keep_starting(baton: Baton) -> None:
    """No growing pauses before a start: what dies here is told to."""
    for child in baton.up.supervisor.children.values():
        child.deaths, child.due = 0, 0.0


def of_the_stack(baton: Baton, agents: Agents) -> list[str]:
    """What is wrong with all that ran, once everything has ended."""
    return [
        *violations(baton.conn, ended=True, stored=True),
        *baton.in_step.wrong,
        *agents.violations(baton.conn),
        *interleaved(heard_by(baton.model.requests)),
        *(f"14: {key} has no TTL" for key in keys_without_end(baton.up.redis_url)),
    ]
