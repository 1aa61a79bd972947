"""What every test stands on: a scrubbed environment, a real Postgres, a real Redis.

One Postgres and one Redis serve a whole run (one each per xdist worker), started from
the same programs as `baton up`. A test gets a database of its own, as a
migrated template is (tests/databases.py), and an empty Redis that must not hold a key without
an end afterwards.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
import redis

SCRUBBED = (
    "ANTHROPIC_",
    "BATON_",
    "CLAUDE",
    "CELERY_",
    "OPENAI_",
    "DATABASE_URL",
    "REDIS_URL",
    "PG",
    "PYTHONDONTWRITEBYTECODE",  # hundreds of processes are started: each module is compiled once
)
for _name in [name for name in os.environ if name.startswith(SCRUBBED)]:
    del os.environ[_name]
sys.dont_write_bytecode = False

# Pytest finds our packages from the checkout; so do the programs that tests start.
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])

from config.settings import settings  # noqa: E402  (the environment is scrubbed first)
from dev.stack.embedded import open_postgres, open_redis  # noqa: E402
from tests.databases import Databases, database, execute, within  # noqa: E402
from tests.machine import LACKS  # noqa: E402
from tests.runs import long as long  # noqa: E402
from tests.runs import pytest_addoption as pytest_addoption  # noqa: E402
from tests.runs import pytest_collection_modifyitems as pytest_collection_modifyitems  # noqa: E402
from tests.runs import pytest_configure as pytest_configure  # noqa: E402
from tests.sharing import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler  # noqa: E402
from worker.live import checkpoints  # noqa: E402

BROKERS_OWN = ("_kombu.", "unacked")  # what Celery keeps in database 0, beside its queues
TEMPLATE = "template_baton"

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def _a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty directory: no `.env` is read, nothing lands in the checkout."""
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Configure:
    """`configure(BATON_LEASE="1")`: the settings as that environment gives them; None unsets."""

    def change(**env: str | None) -> None:
        for name, value in env.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        settings.cache_clear()
        checkpoints.client.cache_clear()  # it may be another test's Redis, which is gone

    return change


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running server; its database `baton` stays empty."""
    with open_postgres(tmp_path_factory.mktemp("services"), durable=False) as server:
        yield server.url


@pytest.fixture(scope="session")
def template(postgres: str) -> str:
    """The name of a database with our schema and no rows, to be copied."""
    from db.core.migrate import migrate

    execute(postgres, f"create database {TEMPLATE}")
    migrate(within(postgres, TEMPLATE))
    return TEMPLATE


@pytest.fixture(scope="session")
def databases(postgres: str, template: str) -> Iterator[Databases]:
    made = Databases(postgres, template)
    yield made
    made.close()


@pytest.fixture
def dsn(databases: Databases) -> Iterator[str]:
    """The URL of a database of the test's own, with our schema and no rows."""
    with databases.one() as url:
        yield url


@pytest.fixture
def empty_dsn(postgres: str) -> Iterator[str]:
    """The URL of a database of the test's own with nothing in it."""
    with database(postgres, "") as url:
        yield url


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to the test's database, each statement its own transaction."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with open_redis(tmp_path_factory.mktemp("services")) as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """The URL of an empty Redis. Fails the test that leaves a key of ours without a TTL."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
        yield redis_server
        assert not (left := keys_without_end(redis_server)), f"keys without a TTL: {left}"


def keys_without_end(url: str) -> list[str]:
    """The keys, as `database:name`, that nothing will ever remove and that are not the broker's."""
    found = list[str]()
    for number in (0, 1, 2):
        with redis.Redis.from_url(within(url, str(number)), decode_responses=True) as client:
            for key in cast(Iterator[str], client.scan_iter(count=1000)):
                ours = number > 0 or not _is_the_brokers(client, key)
                if ours and client.ttl(key) == -1:
                    found.append(f"{number}:{key}")
    return sorted(found)


def _is_the_brokers(client: "redis.Redis", key: str) -> bool:
    return key.startswith(BROKERS_OWN) or client.type(key) == "list"  # a queue with messages


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say aloud what was not tested because the machine lacks something."""
    lacking = Counter[str]()
    for report in terminalreporter.stats.get("skipped", []):
        reason = str(report.longrepr)  # (file, line, reason)
        if LACKS in reason:
            lacking[reason.partition(LACKS)[2].rstrip("')")] += 1
    if lacking:
        terminalreporter.section("NOT TESTED ON THIS MACHINE", sep="!", red=True, bold=True)
        for what, count in sorted(lacking.items()):
            terminalreporter.line(
                f"left out: {count} because this machine lacks {what}", red=True
            )
