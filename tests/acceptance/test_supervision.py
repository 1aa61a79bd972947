"""What `baton up` does about a process of its own that dies."""

import signal
from collections.abc import Iterator

import psycopg
import pytest

from dev.stack import processes
from dev.stack.up import Stack, stack
from tests.acceptance.test_up import APP, SMALL
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def told() -> list[str]:
    """The lines that were told while it ran."""
    return []


@pytest.fixture(scope="module")
def running(told: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    root = tmp_path_factory.mktemp("small")
    (root / "small.py").write_text(APP)
    (root / "Procfile").write_text(SMALL)
    with stack(root, say=lambda _, line: told.append(line)) as stays:
        yield stays


def test_a_worker_that_dies_is_started_again_and_answers(running: Stack):
    first, ready = running.pid("worker"), running.log("worker").count("ready.")
    running.supervisor.kill("worker")
    second = wait_until(
        lambda: (pid := running.pid("worker")) != first and pid, description="a new worker"
    )
    wait_until(
        lambda: running.log("worker").count("ready.") > ready,
        description="the new one's ready",
    )
    assert second != first


def test_a_database_that_dies_is_started_again(running: Stack):
    postgres, broker = running.services.embedded
    before = [postgres.process, broker.process]
    processes.kill(filter(None, before), signal.SIGKILL)
    wait_until(
        lambda: (one := postgres.process) and one not in before and _answers(running),
        description="a new Postgres",
    )
    wait_until(lambda: (one := broker.process) and one not in before, description="a new Redis")


def test_a_database_whose_start_is_refused_ends_nothing_and_is_tried_again(
    running: Stack, told: list[str]
):
    postgres, worker = running.services.embedded[0], running.pid("worker")
    version = postgres.data / "PG_VERSION"
    before = version.read_text()
    told.clear()
    version.write_text("9\n")
    processes.kill(filter(None, [postgres.process]), signal.SIGKILL)
    wait_until(
        lambda: sum("starting it again" in line for line in told) > 1,
        description="a second try",
    )
    version.write_text(before)
    wait_until(lambda: _answers(running), timeout=20, description="Postgres to answer")
    assert running.pid("worker") == worker


def _answers(running: Stack) -> bool:
    try:
        psycopg.connect(running.database_url).close()
    except psycopg.OperationalError:
        return False
    return True
