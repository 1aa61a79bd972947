"""The ledger agrees with a model of it, whatever is done to it in whatever order."""

from collections import Counter
from collections.abc import Iterator
from types import ModuleType

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from db.jobs import endings
from tests.faults.clock import Clock, open_clock
from tests.faults.compared import Ledger
from tests.faults.conftest import Tally
from tests.faults.histories import Histories
from tests.faults.pair import Broken

SHORT, LONG = 40, 120  # histories
STEPS = 30


@pytest.fixture
def clock(empty_dsn: str) -> Iterator[Clock]:
    with open_clock(empty_dsn) as opened:
        yield opened


def check(clock: Clock, seed: int, times: int, *, shrink: bool = True) -> Counter[str]:
    """Make up so many histories. Returns how many jobs came to which end, and how."""
    seen = Counter[str]()

    def ended(ledger: Ledger) -> None:
        seen["histories"] += 1
        seen.update(job.state for job in ledger.model.jobs.values())
        seen["races"] += ledger.seen["raced"]
        seen["won"] += ledger.seen["promoted"]
        seen["rescues"] += sum(job.rescues for job in ledger.model.jobs.values())

    class Made(Histories):
        def __init__(self) -> None:
            super().__init__(clock, ended)

    run_state_machine_as_test(
        hypothesis.seed(seed)(Made),
        settings=settings(
            max_examples=times,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=False,
            print_blob=True,
            report_multiple_bugs=False,
            phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
    return seen


@pytest.mark.timeout(1200)
def test_the_ledger_does_what_its_model_does(clock: Clock, tally: Tally, seed: int, long: bool):
    tally.fault = "any order of requests, deaths, late writes and operators"
    tally.simulated = "agent, worker, time"
    seen = check(clock, seed, LONG if long else SHORT)
    tally.ran(seen["histories"])
    tally.note = (
        f"{STEPS} steps each, {seen['done']} jobs done, {seen['rescues']} rescued;"
        f" races: {seen['races']} begun, {seen['won']} won"
    )
    assert seen["histories"] >= (LONG if long else SHORT) / 2
    assert {"done", "cancelled"} <= set(seen)


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "statement", "rule", "instead"),
    [
        (endings, "FINISH", "and attempt = %(attempt)s", ""),
        (endings, "PUT_BACK", "= 'go on' for update", "is not null for update"),
    ],  # the simulation has more
    ids=("an end by anybody", "a cancel unheard"),
)
def test_a_ledger_that_lacks_a_rule_is_told_from_its_model(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    statement: str,
    rule: str,
    instead: str,
):
    whole: str = getattr(module, statement)
    assert rule in whole
    monkeypatch.setattr(module, statement, whole.replace(rule, instead))
    with pytest.raises(Broken):
        check_often(clock)


def check_often(clock: Clock) -> None:
    """What is broken shows within some hundred histories; a seed may be a lucky one."""
    for seed in range(16):
        check(clock, seed, LONG, shrink=False)
