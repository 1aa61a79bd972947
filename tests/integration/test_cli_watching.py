"""Watching at the command line: what a job waits for, what changes, and going away again."""

import json
import os
import pty
import re
import signal
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
import redis
from psycopg import Connection

from db.jobs import listing, workers
from db.jobs.listing import Wanted
from db.jobs.workers import Worker
from tests import ledger
from tests.commandline import BATON
from tests.commandline import checkout as checkout
from tests.commandline import environment as environment
from tests.waiting import wait_until
from worker.live.checkpoints import PROGRESS
from worker.live.progress import NOTED

ASKED = ("enqueue", "build", "--project", "p", "--user", "u", "--prompt", "x", "--wait")
CLEARED = "\x1b[2K"  # what Ctrl-C finds of the live line is taken off the screen
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Running:
    """`baton` as it runs, with what it has said so far, at a terminal or into pipes."""

    process: "subprocess.Popen[bytes]"
    said: list[bytes] = field(default_factory=list[bytes])
    err: list[bytes] = field(default_factory=list[bytes])

    @property
    def out(self) -> str:
        return b"".join(self.said).decode(errors="replace")

    @property
    def errors(self) -> str:
        return b"".join(self.err).decode(errors="replace")

    def says(self, text: str) -> None:
        wait_until(lambda: text in self.out, timeout=30, description=f"{text!r} to be said")

    def stop(self) -> int:
        """As Ctrl-C does; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


def read(descriptor: int, into: list[bytes]) -> None:
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # a terminal whose other end is closed
            return
        if not part:
            return
        into.append(part)


@contextmanager
def running(
    arguments: tuple[str, ...], env: dict[str, str], cwd: Path, *, terminal: bool = False
) -> Generator[Running]:
    """That command, ended at the end of the block if it has not by then."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    err_ours, err_theirs = (ours, theirs) if terminal else os.pipe()
    process = subprocess.Popen(
        [BATON, *arguments],
        stdin=theirs if terminal else subprocess.DEVNULL,
        stdout=theirs,
        stderr=err_theirs,
        env=env | {"TERM": "xterm-256color", "COLUMNS": "100"},
        cwd=cwd,
    )
    found = Running(process)
    readers = [threading.Thread(target=read, args=(ours, found.said), daemon=True)]
    os.close(theirs)
    if not terminal:
        os.close(err_theirs)
        readers.append(threading.Thread(target=read, args=(err_ours, found.err), daemon=True))
    for reader in readers:
        reader.start()
    try:
        yield found
    finally:
        process.kill()
        process.wait()
        for reader in readers:
            reader.join(10)


@pytest.fixture
def env(environment: dict[str, str], dsn: str, redis_url: str) -> dict[str, str]:
    return environment | {"DATABASE_URL": dsn, "REDIS_URL": redis_url}


def asked_for(conn: Connection) -> UUID:
    return wait_until(
        lambda: listing.jobs(conn, Wanted(kinds=("build",), states=("queued",))),
        timeout=30,
        description="the request",
    )[-1].id


def test_who_waits_has_the_id_at_once_and_is_told_what_the_job_waits_for(
    env: dict[str, str], checkout: Path, conn: Connection
):
    workers.report(conn, Worker("w1", "here", 1, 2, None, "2.1", "abc"))
    busy = ledger.begun(conn)
    with running(ASKED, env, checkout) as waiting:
        job = asked_for(conn)
        waiting.says(f"{job}  build  queued\n")
        waiting.says(
            f"build       waits: Behind the build {str(busy.id)[:8]} of an earlier request"
        )
        ledger.finish(conn, busy)
        claimed = ledger.claim(conn, job)
        assert claimed
        waiting.says("started on host")
        assert waiting.stop() == 130
    assert waiting.out.splitlines()[0] == f"{job}  build  queued"
    assert waiting.errors == (
        f"Stopped watching; the job goes on: `baton jobs {job} --watch` shows it.\n"
    )
    assert ledger.job_row(conn, job) == "running"


def test_with_json_stdout_is_the_documents_and_stderr_has_the_id(
    env: dict[str, str], checkout: Path, conn: Connection
):
    with running((*ASKED, "--json"), env, checkout) as waiting:
        job = asked_for(conn)
        wait_until(lambda: "waits: No worker" in waiting.errors, timeout=30, description="why")
        claimed = ledger.claim(conn, job)
        assert claimed
        ledger.finish(conn, claimed)
        assert waiting.process.wait(60) == 0
    assert waiting.errors.startswith(f"{job}  build  queued\n")
    assert json.loads(waiting.out)["jobs"][0]["id"] == str(job)


def test_ctrl_c_leaves_a_clean_screen_that_says_how_to_go_on(
    env: dict[str, str], checkout: Path, conn: Connection
):
    with running(ASKED, env, checkout, terminal=True) as waiting:
        job = asked_for(conn)
        waiting.says("waits: No worker is online")
        assert waiting.stop() == 130
        waiting.says(f"`baton jobs {job} --watch`")
    last = waiting.out.rpartition(CLEARED)[2]
    assert STYLE.sub("", last).split() == (
        f"Stopped watching; the job goes on: `baton jobs {job} --watch` shows it.".split()
    )
    assert waiting.out.rindex("\x1b[?25h") > waiting.out.rindex("\x1b[?25l"), "with its cursor"


def test_a_watched_list_tells_what_is_new_of_it(
    env: dict[str, str], checkout: Path, conn: Connection
):
    job = ledger.ask(conn)
    with running(("jobs", "--watch", "--project", "p"), env, checkout) as watching:
        watching.says(f"  {job}  p  build  queued  No worker is online")
        claimed = ledger.claim(conn, job)
        assert claimed
        watching.says(f"  {job}  p  build  running  on host for")
        ledger.finish(conn, claimed)
        watching.says(f"  {job}  p  build  done\n")
        assert watching.stop() == 130
    assert watching.errors == "Stopped watching.\n"
    assert len(watching.out.splitlines()) == 3, "seconds that pass are no news"


def test_a_watched_list_is_drawn_anew_and_left_as_it_was_last(
    env: dict[str, str], checkout: Path, conn: Connection
):
    job = ledger.ask(conn)
    with running(("jobs", "--watch"), env, checkout, terminal=True) as watching:
        watching.says("queued")
        claimed = ledger.claim(conn, job)
        assert claimed
        watching.says("running")
        assert watching.stop() == 130
        watching.says("Stopped watching.")
    before, _, after = watching.out.partition("\x1b[?1049l")
    assert before.startswith("\x1b[?1049h"), "on a screen of its own"
    assert str(job)[:8] in after
    assert "running" in after


def test_a_job_is_watched_to_its_end_by_its_id(
    env: dict[str, str], checkout: Path, conn: Connection
):
    job = ledger.begun(conn)
    with running(("jobs", str(job.id)[:8], "--watch"), env, checkout) as watching:
        watching.says("build       started on host")
        ledger.finish(conn, job)
        assert watching.process.wait(60) == 0
    assert watching.out.endswith(f"The chain {job.id} has ended: build done.\n")


def test_an_agent_that_says_nothing_is_told_of(
    env: dict[str, str], checkout: Path, conn: Connection
):
    job = ledger.begun(conn)
    conn.execute("update jobs set claimed_at = now() - interval '10 min'")
    with redis.Redis.from_url(env["REDIS_URL"].removesuffix("0") + str(PROGRESS)) as told:
        told.set(f"silent:{job.id}", "300", px=NOTED)
    with running(("jobs", str(job.id), "--watch"), env, checkout) as watching:
        watching.says("its agent has been silent for 5 m")
        assert watching.stop() == 130
    assert watching.out.count("silent for") == 1, "again when it has doubled"
