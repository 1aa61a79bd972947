"""Disks that are full, and directories that cannot be written: the job says so, and goes on."""

import subprocess
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from db.core import pool
from db.core.migrate import migrate
from db.jobs import jobs, listing
from db.jobs.listing import Wanted
from dev.stack.embedded import open_postgres
from dev.stack.server import ServiceError
from tests.egress import proxy
from tests.faults.conftest import Tally
from tests.faults.driving import drive, running, wrong
from tests.machine import needs_mounts
from tests.running import AtWork, P, U
from tests.waiting import wait_until
from worker.client import Build, ChatPlan, enqueue
from worker.failures.errors import WorkspaceFailed
from worker.workspace import git

MIB = 2**20
PROMPT = "write b.txt: 2\nrun: head -c 60000 /dev/urandom > big"


@dataclass
class Disk:
    """A disk of its own: small, and to be filled."""

    path: Path

    @property
    def filler(self) -> Path:
        return self.path / "filler"

    def fill(self, *, but: int = 0) -> None:
        """Leave so many bytes of it."""
        with self.filler.open("wb", buffering=0) as file, suppress(OSError):
            for size in (MIB, 4096):
                with suppress(OSError):
                    while file.write(b"\0" * size) == size:
                        pass
        with self.filler.open("rb+") as file:
            file.truncate(max(0, self.filler.stat().st_size - but))

    def free(self) -> None:
        self.filler.unlink()


@contextmanager
def disk(path: Path, megabytes: int) -> Generator[Disk]:
    path.mkdir(parents=True)
    size = ["-o", f"size={megabytes}m"]
    subprocess.run(["mount", "-t", "tmpfs", *size, "none", str(path)], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def waits(at_work: AtWork, error_class: str, *, attempts: int) -> None:
    """The newest build could not be done for that reason; the head is what it was."""
    (job,) = [one for one in listing.jobs(at_work.conn, Wanted()) if not one.ended]
    assert (job.state, job.error_class, job.attempts) == ("queued", error_class, attempts)
    assert job.error
    assert job.error.endswith(".")
    assert at_work.head() == at_work.moves()[-1][3]
    assert len(at_work.moves()) == 1


def goes_on(at_work: AtWork) -> None:
    """Once there is room the job is done, on what was there before."""
    (job,) = [one for one in listing.jobs(at_work.conn, Wanted()) if not one.ended]
    drive(at_work, job.id, alone=True)
    assert at_work.job(job.id).state == "done"
    assert (at_work.place / "a.txt").read_text() == "1"
    assert (at_work.place / "b.txt").read_text() == "2"


@needs_mounts
@pytest.mark.parametrize(
    "left", [*(pytest.param(n, marks=pytest.mark.long) for n in (0, 8192)), 65536]
)
def test_a_full_disk_of_workspaces_is_waited_for(
    at_work: AtWork, left: int, tmp_path: Path, tally: Tally
):
    tally.fault = f"the workspaces' disk is full but for {left // 1024} KiB"
    with disk(tmp_path / "small", 8) as small:
        at_work.configure(BATON_WORKSPACES=str(small.path))
        at_work.build("write a.txt: 1")
        small.fill(but=left)
        at_work.build(PROMPT)
        waits(at_work, "disk_full", attempts=1)
        small.free()
        goes_on(at_work)
        tally.ran()
        assert (at_work.place / "big").stat().st_size == 60000
    tally.check(wrong(at_work))


@needs_mounts
def test_git_need_not_say_that_the_disk_is_full(tmp_path: Path):
    mute = ("sh", "-c", "echo \"couldn't write 'a.lock'\" >&2; exit 1")
    with disk(tmp_path / "small", 2) as small:
        with pytest.raises(WorkspaceFailed, match=r"a\.lock"):
            git.run(*mute, cwd=small.path)
        small.fill(but=8192)
        with pytest.raises(OSError, match="No space left"):
            git.run(*mute, cwd=small.path)


@needs_mounts
@pytest.mark.parametrize("left", [pytest.param(0, marks=pytest.mark.long), 100_000])
def test_a_full_disk_of_the_agent_is_waited_for(
    at_work: AtWork, left: int, tmp_path: Path, tally: Tally
):
    tally.fault = f"the agent's (and temporary) directory is full but for {left // 1024} KiB"
    with disk(tmp_path / "small", 8) as small:
        at_work.configure(BATON_AGENT_HOME=str(small.path / "agent"))
        at_work.build("write a.txt: 1")
        small.fill(but=left)
        at_work.build(PROMPT)
        waits(at_work, "disk_full", attempts=1)
        small.free()
        goes_on(at_work)
        tally.ran()
    tally.check(wrong(at_work))


def test_a_worker_that_cannot_write_its_agents_directory_leaves_the_job_to_others(
    at_work: AtWork, tmp_path: Path, tally: Tally
):
    tally.fault = "the CLI's config directory cannot be written"
    at_work.begin("write a.txt: 1")
    (tmp_path / "in-the-way").write_text("a file where a directory should be")
    at_work.configure(BATON_AGENT_HOME=str(tmp_path / "in-the-way"))
    at_work.build(PROMPT)
    waits(at_work, "agent_home_unwritable", attempts=0)
    at_work.configure(BATON_AGENT_HOME=str(tmp_path / "another"))
    goes_on(at_work)
    tally.ran()
    tally.check(wrong(at_work))


@needs_mounts
@pytest.mark.long
def test_a_workspace_that_is_read_only_is_tried_again(
    at_work: AtWork, tmp_path: Path, tally: Tally
):
    tally.fault = "the workspaces' disk is read only"
    with disk(tmp_path / "small", 8) as small:
        at_work.configure(BATON_WORKSPACES=str(small.path))
        at_work.build("write a.txt: 1")
        subprocess.run(["mount", "-o", "remount,ro", str(small.path)], check=True)
        at_work.build(PROMPT)
        waits(at_work, "not_writable", attempts=1)
        subprocess.run(["mount", "-o", "remount,rw", str(small.path)], check=True)
        goes_on(at_work)
        tally.ran()
    tally.check(wrong(at_work))


@pytest.mark.long
@needs_mounts
def test_postgres_whose_disk_is_full_loses_nothing(
    at_work: AtWork, tmp_path: Path, long: bool, tally: Tally
):
    tally.fault = "Postgres: its disk is full for a while"
    with ExitStack() as stays:
        small = stays.enter_context(disk(tmp_path / "small", 160))
        server = stays.enter_context(open_postgres(small.path, durable=True))
        migrate(server.url)
        at_work.configure(DATABASE_URL=server.url)
        pool.close()
        stays.callback(pool.close)
        stays.enter_context(proxy())  # which knows the turns of this database
        at_work.conn = stays.enter_context(psycopg.connect(server.url, autocommit=True))
        at_work.build("write a.txt: 1")
        for left in (8192, 2 * MIB) if long else (8192,):
            asked = at_work.ask(Build(project=P, user=U, prompt="run: sleep 1\nwrite b.txt: 2"))
            with running(at_work, asked):
                small.fill(but=left)
                acknowledged = refused(server.url)
                threading.Event().wait(1.5)
                small.free()
                if not server.process:  # it could not even write its log of changes
                    tally.note = "Postgres itself had died, and was started again"
                    server.start()
            at_work.conn.close()
            wait_until(lambda: answers(server.url), timeout=30, description="Postgres")
            at_work.conn = stays.enter_context(psycopg.connect(server.url, autocommit=True))
            drive(at_work, asked, alone=True)
            assert at_work.job(asked).state == "done"
            kept = {job_id for (job_id,) in at_work.rows("select id from jobs")}
            tally.check([f"{one} is lost" for one in acknowledged if one not in kept])
            for one in acknowledged:
                jobs.cancel(at_work.conn, one)
            tally.ran()
        tally.check(wrong(at_work))


def refused(dsn: str) -> list[UUID]:
    """Ask for work until Postgres takes no more; the ids that it took."""
    acknowledged = list[UUID]()
    with suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True) as conn:
        for n in range(20_000):
            ask = ChatPlan(project=f"p{n}", user=U, prompt="say 1 " + "x" * 20_000)
            acknowledged.append(enqueue(conn, ask).id)
    assert len(acknowledged) < 20_000
    return acknowledged


def answers(dsn: str) -> bool:
    with suppress(psycopg.Error, ServiceError), psycopg.connect(dsn, connect_timeout=2) as conn:
        conn.execute("create temporary table room (n int)")
        return True
    return False
