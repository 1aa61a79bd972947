"""Running `baton` in tests: the installed program, or the same in the test's process.

A test module imports the fixtures that it needs, and those that they need.
"""

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from psycopg import Connection

from tests import ledger
from tests.conftest import Configure
from worker.cli import main
from worker.live import checkpoints

BATON = Path(sys.executable).with_name("baton")
CHECKOUT = Path(__file__).parents[1]
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


@dataclass(frozen=True)
class Ran:
    """What a run of `baton` left: its exit code and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Baton = Callable[..., Ran]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own, so that what runs in the real one is not found."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in (
        "config",
        "db",
        "worker",
        "tasks",
        "egress",
        "dev",
        "pyproject.toml",
        "Procfile",
    ):
        (root / name).symlink_to(CHECKOUT / name)
    return root


@pytest.fixture
def environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout)}


@pytest.fixture
def program(environment: dict[str, str], checkout: Path) -> Baton:
    """`program("jobs")`: the installed program, with no service named."""

    def run(*arguments: str, stdin: bytes = b"", cwd: Path = checkout, **env: str) -> Ran:
        done = subprocess.run(
            [BATON, *arguments],
            input=stdin,
            capture_output=True,
            env=environment | env,
            cwd=cwd,
            timeout=150,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def bare(capsys: pytest.CaptureFixture[str], configure: Configure) -> Baton:
    """`bare("jobs")`: the same in this process, which is quicker, with no service named."""

    def run(*arguments: str, **env: str) -> Ran:
        configure(**env)
        capsys.readouterr()
        code = main(list(arguments))
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture
def baton(bare: Baton, dsn: str, redis_url: str) -> Baton:
    """`baton("jobs")`: as `bare`, with the test's database and Redis."""

    def run(*arguments: str, **env: str) -> Ran:
        checkpoints.client.cache_clear()
        return bare(*arguments, **{"DATABASE_URL": dsn, "REDIS_URL": redis_url} | env)

    return run


def failed(conn: Connection, error: str) -> UUID:
    """A job that has failed, with that sentence."""
    job = ledger.ask(conn)
    conn.execute(
        """
        update jobs set state = 'failed', finished_at = now(), error_class = 'broke', error = %s
         where id = %s
        """,
        (error, job),
    )
    return job


def on_a_terminal(arguments: list[str], env: dict[str, str], cwd: Path) -> str:
    """What a person sees: all that the program writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [BATON, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env | {"TERM": "xterm-256color", "COLUMNS": "200"},
        cwd=cwd,
    ) as running:
        os.close(theirs)
        screen = b"".join(_read(ours, until=time.monotonic() + 20))
        assert running.wait(60) == 0
    os.close(ours)
    return screen.decode()


def _read(terminal: int, *, until: float) -> Iterator[bytes]:
    while time.monotonic() < until and select.select([terminal], [], [], 20)[0]:
        try:
            yield os.read(terminal, 65536)
        except OSError:  # the program has ended
            return
