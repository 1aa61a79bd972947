"""The running Baton that the tests of Redis, messages, beat and relay share: two of each."""

from collections.abc import Iterator

import pytest

from config.settings import settings
from tests.acceptance.outside import baton_up
from tests.faults.transport.struck import COMMANDS, EVERY, Struck
from tests.waiting import wait_until


@pytest.fixture(scope="package")
def stack_of_two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Struck]:
    """One worker; two beats and two relays, always: whatever is struck, they are in it."""
    with baton_up(
        tmp_path_factory.mktemp("struck"),
        commands=COMMANDS,
        BATON_COMPACT="always",
        BATON_UPKEEP_EVERY=f"{EVERY:g}",
        BATON_LEASE="12",
        BATON_RENEW_EVERY="2",
    ) as baton:
        yield Struck(baton)


@pytest.fixture
def struck(stack_of_two: Struck, monkeypatch: pytest.MonkeyPatch) -> Iterator[Struck]:
    """The running Baton. Whatever the test did, all of it runs afterwards, and in it the same worker
    unless the test says otherwise."""
    struck = stack_of_two
    monkeypatch.setenv("DATABASE_URL", struck.baton.up.database_url)
    settings.cache_clear()
    struck.same_worker = True
    supervisor = struck.baton.up.supervisor
    worker = struck.baton.up.pid("worker")
    try:
        yield struck
    finally:
        if not struck.broker.wanted:
            struck.begin()
        for name, child in supervisor.children.items():
            if not child.wanted:
                supervisor.resume(name)
    wait_until(
        lambda: all(struck.baton.up.pid(name) for name in COMMANDS),
        timeout=40,
        description="every process to run",
    )
    if struck.same_worker:
        assert struck.baton.up.pid("worker") == worker, "the worker died"
