"""A workspace that moved, that is held by another, or whose git fails; and what is nested too deep."""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import settings
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.hosts import files, writes
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.agent import Turn
from worker.client import Build, Refused
from worker.failures.errors import AgentFailed
from worker.workspace import trees

pytestmark = pytest.mark.agent("direct")

HOLDS = """
import sys
from pathlib import Path
from worker.workspace import lockfile
with lockfile.taken(Path(sys.argv[1]), within=0) as alone:
    print(alone, flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_holds(lock: Path) -> Generator[int]:
    """Another process has the lock; its id."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"True\n"
        try:
            yield holder.pid
        finally:
            holder.communicate(b"")


def test_a_project_that_was_never_built_follows_the_root_of_workspaces(
    at_work: AtWork, tmp_path: Path
):
    def failing(*_: object, **__: object) -> Turn:
        raise AgentFailed("model_not_found", "There is none.", 404)

    assert at_work.build("write a.txt: 1", agent=failing).state == "failed"
    before = at_work.place
    at_work.configure(BATON_WORKSPACES=str(tmp_path / "moved"))
    assert at_work.build("write a.txt: 1").state == "done"
    assert at_work.place != before
    assert files(at_work.place) == {"a.txt": "1"}
    assert not (before / "a.txt").exists()


def test_one_whose_files_nobody_has_kept_is_not_begun_anew_elsewhere(
    at_work: AtWork, tmp_path: Path
):
    """A session was committed, and its workspace was never written by a turn."""
    at_work.agent = writes
    at_work.chat("what is there?")
    at_work.configure(BATON_WORKSPACES=str(tmp_path / "moved"))
    (tmp_path / "moved").mkdir()
    with pytest.raises(Refused, match="is outside"):
        at_work.ask(Build(project=P, user=U, prompt="write a.txt: 1"))


def test_a_job_waits_while_another_process_has_the_files(
    at_work: AtWork, monkeypatch: pytest.MonkeyPatch, bare: Baton
):
    at_work.agent = writes
    at_work.build("write a.txt: 1")
    head = str(at_work.head())
    monkeypatch.setattr(trees, "PATIENCE", 0.2)
    with another_holds(settings().workspaces / ".trees" / f"{P}.lock") as pid:
        job = at_work.build("write b.txt: 2")
        assert (job.state, job.error_class, job.attempts) == ("queued", "workspace_busy", 0)
        assert f"process {pid} of host" in str(job.error)
        assert set(files(at_work.place)) == {"a.txt"}
        told = bare("project", P, "--rewind", head)
        assert (told.code, f"process {pid}" in told.err, told.err.count("\n")) == (1, True, 1)
    assert at_work.again(job.id).state == "done"
    assert violations(at_work.conn) == []


@pytest.mark.agent("cli")
def test_a_turn_that_was_paid_for_outlives_a_git_that_fails(
    at_work: AtWork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is committed by the next attempt, and not asked for again."""
    at_work.begin("write a.txt: 1")
    real = shutil.which("git")
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *write-tree*) [ -e {at_work.place}/b.txt ] && exit 128;; esac\n'
        f'exec {real} "$@"\n'
    )
    program.chmod(0o755)
    with monkeypatch.context() as here:
        here.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        job = at_work.build("write b.txt: 2")
    assert (job.state, job.error_class) == ("queued", "workspace_failed")
    asked = len(at_work.model.requests)
    assert at_work.again(job.id).state == "done"
    assert len(at_work.model.requests) == asked
    assert files(at_work.place) == {"a.txt": "1", "b.txt": "2"}
    assert at_work.events("turn.recovered")[-1]["what"] == "finished"
    assert violations(at_work.conn) == []


NESTS = 'import os; [(os.mkdir("d"), os.chdir("d")) for _ in range(1050)]'


@pytest.mark.agent("cli")
def test_however_deep_an_agent_nests_its_temporary_files_they_go_with_the_turn(at_work: AtWork):
    job = at_work.build(f"run: cd $TMPDIR; {sys.executable} -c '{NESTS}'\nwrite a.txt: 1")
    assert (job.state, job.error) == ("done", None)
    assert list((settings().agent_home / "tmp").iterdir()) == []
