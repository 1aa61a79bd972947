"""The short run, which is `make test`, and the long one, `make faults` (`--long`).

A test is left to the long run where it repeats what a shorter one shows: more faults, more rows of
a table, the same on a larger scale.
"""

import pytest

from tests.sharing import TOGETHER


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption(
        "--long", action="store_true", help="each fault as often as its figures need"
    )
    group.addoption("--seed", type=int, help="repeat what a seed has drawn")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; only with --long (make faults)")
    config.addinivalue_line("markers", "computes: keeps a processor busy from first to last")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes minutes is left to `make faults`, which has its own order."""
    long = bool(config.getoption("--long", default=False))
    kept = [item for item in items if _of_this_run(item, long=long)]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = _in_order(kept) if long else kept


def _of_this_run(item: pytest.Item, *, long: bool) -> bool:
    """The long run has all of tests/faults, and of the other folders what the short one leaves."""
    if item.get_closest_marker("long"):
        return long
    return not long or item.nodeid.startswith("tests/faults/")


def _in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """Those first that run one after the other in one process. Of the rest, the few that only
    compute lie evenly among the many that mostly wait: so a processor is seldom idle."""
    together = [item for item in items if any(map(item.nodeid.startswith, TOGETHER))]
    rest = [item for item in items if item not in together]
    computing = [item for item in rest if item.get_closest_marker("computes")]
    waiting = [item for item in rest if item not in computing]
    place = {
        item: (number + 0.5) / len(kind)
        for kind in (computing, waiting)
        for number, item in enumerate(sorted(kind, key=_longest, reverse=True))
    }
    return sorted(together, key=_longest, reverse=True) + sorted(rest, key=place.__getitem__)


def _longest(item: pytest.Item) -> float:
    limit = item.get_closest_marker("timeout")
    return float(limit.args[0]) if limit else 0.0


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long run."""
    return bool(request.config.getoption("--long", default=False))
