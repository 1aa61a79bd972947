"""What resuming saved: compared with the control sample, or said to be no fair measure."""

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from worker.reports.figures import compare, resume_rate


def sample(name: str, *, cost: str, duration: int) -> dict[str, Any]:
    return {"sample": name, "cost_usd": Decimal(cost), "duration_ms": Decimal(duration)}


def test_the_control_sample_goes_before_other_fresh_builds():
    found = compare(
        [
            sample("control", cost="2", duration=100),
            sample("fresh", cost="9", duration=900),
            sample("resumed", cost="0.5", duration=150),
        ]
    )
    assert found["baseline"] == "control"
    assert found["cost_reduction"] == pytest.approx(0.75)
    assert found["duration_reduction"] == pytest.approx(-0.5), "worse is told too"


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [sample("resumed", cost="1", duration=1)],
        [sample("control", cost="1", duration=1)],
        [sample("control", cost="0", duration=0), sample("resumed", cost="1", duration=1)],
    ],
)
def test_without_both_sides_nothing_is_claimed(samples: list[dict[str, Any]]):
    found = compare(samples)
    assert (found["cost_reduction"], found["duration_reduction"]) == (None, None)


def test_a_rate_of_no_turns_is_none():
    assert resume_rate(Counter(first=3, policy=2)) is None
    assert resume_rate(Counter(resumed=1, older=1, recovered=1, fallback=1)) == 0.75
