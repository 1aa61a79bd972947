"""Baton from its wheel and the production lock, away from the checkout, with given servers.

What `make install-check` runs too, in an environment that pip made from the registry.
"""

import json
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from config.release import version
from dev.stack.procfile import CODE
from dev.standin.server import standin
from tests.installed import LOCKS, Installed, install, locked
from tests.waiting import wait_until

EVERY_MODULE = """
import pkgutil, importlib, config, db, worker, tasks
for package in (config, db, worker, tasks):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        print(importlib.import_module(found.name).__file__)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("install"))


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installed:
    return Installed(environment, tmp_path)


@pytest.fixture
def servers(empty_dsn: str, redis_url: str) -> Iterator[dict[str, str]]:
    """The addresses of a database, a broker and a model that run already."""
    with standin("plain", speed=0) as model:
        yield {
            "DATABASE_URL": empty_dsn,
            "REDIS_URL": redis_url,
            "ANTHROPIC_BASE_URL": model.url,
            "ANTHROPIC_API_KEY": "stand-in",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


def test_the_two_locks_agree():
    production = {one.name: one for one in locked(LOCKS["requirements.lock"])}
    development = {one.name: one for one in locked(LOCKS["requirements-dev.lock"])}
    assert {name: development[name] for name in production} == production


@pytest.mark.long
def test_every_module_of_the_product_finds_what_it_imports(installed: Installed):
    done = installed.run("python", "-c", EVERY_MODULE)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 100
    assert str(CODE / "worker") not in done.stdout, "these are the wheel's, not the checkout's"


@pytest.mark.long
def test_every_process_starts_and_a_job_runs_on_what_is_installed(
    installed: Installed, servers: dict[str, str]
):
    """Worker, relay, beat and Flower, the real CLI, and the commands of an operator."""
    env = installed.environment(**servers, PYTHONUNBUFFERED="1", BATON_UPKEEP_EVERY="2")
    with _up(installed.place, env):
        asked = ("enqueue", "build", "--project", "shop", "--user", "ann", "--wait")
        chain = _told(installed, *asked, "--prompt", "write index.html: <h1>Shop</h1>")
        assert [(job["kind"], job["state"]) for job in chain["jobs"]] == [
            ("build", "done"),
            ("metadata", "done"),
            ("compaction", "done"),
        ]
        index = installed.place / ".baton/workspaces/shop/index.html"
        assert index.read_text() == "<h1>Shop</h1>"
        found = {check["name"]: check for check in _told(installed, "doctor")["checks"]}
        assert {found[name]["state"] for name in ("workers", "relay", "redis")} == {"ok"}
        assert found["baton"]["text"].startswith(f"{version()}, on Python 3.")
        with psycopg.connect(servers["DATABASE_URL"], autocommit=True) as conn:
            wait_until(
                lambda: conn.execute("select count(*) from ticks").fetchone() != (0,),
                description="beat's first tick",
            )
    for name in ("worker", "beat", "relay", "flower"):
        log = (installed.place / f".baton/log/{name}.log").read_text()
        assert "Traceback" not in log, log


def _told(installed: Installed, *arguments: str) -> Any:
    """A command's document. The servers' addresses are those of the `baton up` that runs there."""
    done = installed.run("baton", *arguments, "--json")
    assert done.returncode == 0, done.stderr  # `--wait` says on stderr what it waits for
    return json.loads(done.stdout)


def test_the_version_is_said_without_any_setting(installed: Installed):
    done = installed.run("baton", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{version()}\n", "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "given", "says"),
    [
        ("baton up", "", "set DATABASE_URL and REDIS_URL to servers of yours, or `pip install"),
        ("baton up", "DATABASE_URL REDIS_URL", "There is no model: set ANTHROPIC_API_KEY, or"),
        ("python -m dev.standin", "", "The stand-in needs the package yaml: `pip install"),
    ],
)
def test_what_needs_more_says_what_to_install(
    installed: Installed, servers: dict[str, str], command: str, given: str, says: str
):
    env = {name: servers[name] for name in given.split()}
    done = installed.run(*command.split(), **env)
    assert done.returncode == 1
    told = (done.stdout + done.stderr).strip()
    assert says in " ".join(told.split())
    assert "Traceback" not in told


@contextmanager
def _up(place: Path, env: dict[str, str]) -> Generator[None]:
    """`baton up`, from its line `ready`, which says that each process answers, to a clean end."""
    log = place / "up.log"
    with log.open("wb") as out, subprocess.Popen(
        ["baton", "up"], env=env, cwd=place, stdout=out, stderr=out
    ) as up:  # fmt: skip
        try:
            wait_until(
                lambda: "\nready  database " in log.read_text() or up.poll() is not None,
                timeout=60,
                description="the line `ready`",
            )
            assert up.poll() is None, log.read_text()
            yield
            up.send_signal(signal.SIGTERM)
            assert up.wait(60) == 0, log.read_text()
        finally:
            up.kill()
