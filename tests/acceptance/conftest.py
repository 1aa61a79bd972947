"""The running Baton that the acceptance tests share, and what must hold after each of them."""

from collections.abc import Iterator

import pytest

from config.settings import settings
from db.jobs import limits
from tests.acceptance.outside import Baton, baton_up
from tests.conftest import keys_without_end
from tests.invariants import violations


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baton]:
    """Baton as `baton up` runs it, once; projects are each test's own."""
    root = tmp_path_factory.mktemp("up")
    with baton_up(root, BATON_COMPACT="always", BATON_UPKEEP_EVERY="2") as baton:
        yield baton


@pytest.fixture
def baton(running: Baton, monkeypatch: pytest.MonkeyPatch) -> Iterator[Baton]:
    """The running Baton. After the test the ledger's invariants hold, and no worker has died."""
    yield from looked_after(running, monkeypatch)


def looked_after(running: Baton, monkeypatch: pytest.MonkeyPatch) -> Iterator[Baton]:
    monkeypatch.setenv("DATABASE_URL", running.up.database_url)
    settings.cache_clear()
    worker = running.up.pid("worker")
    yield running
    running.model.clear_faults()
    for limit in limits.in_force(running.conn):
        limits.clear(running.conn, limit.credential)
    assert running.up.pid("worker") == worker, "the worker died"
    assert violations(running.conn) == []
    assert running.in_step.wrong == []
    assert keys_without_end(running.up.redis_url) == []
