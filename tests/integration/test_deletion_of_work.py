"""Deleting what a real agent has made, and asking at a terminal."""

import os
import pty
import subprocess
from pathlib import Path

import pytest
from psycopg import Connection

from config.settings import settings
from tests.commandline import BATON
from tests.commandline import checkout as checkout
from tests.commandline import environment as environment
from tests.ledger import built, one
from tests.running import AtWork, P
from worker.cli import main
from worker.client import Build

pytestmark = pytest.mark.agent("direct")


def test_a_project_begins_anew_for_another_user_after_its_deletion(
    at_work: AtWork, capsys: pytest.CaptureFixture[str]
):
    chain = at_work.chain(Build(project=P, user="ann", prompt="write a.txt: of ann"))
    assert [job.state for job in chain] == ["done"] * 3
    assert main(["delete", "project", P, "--yes"]) == 0
    assert f"Removed {at_work.place}." in capsys.readouterr().out
    assert list(settings().workspaces.iterdir()) == [settings().workspaces / ".trees"]
    assert list((settings().workspaces / ".trees").iterdir()) == []
    new = at_work.one(Build(project=P, user="eve", prompt="write b.txt: of eve"))
    assert new.state == "done"
    assert [path.name for path in at_work.place.iterdir()] == ["b.txt"]
    assert at_work.tries(new.id) == [(None, "fresh", "first")]
    assert at_work.model.requests[-1].prompts == ("write b.txt: of eve",)
    assert at_work.moves()[0][2] is None


def test_what_a_host_keeps_of_branches_and_for_other_hosts_goes_too(
    at_work: AtWork, tmp_path: Path
):
    remote = tmp_path / "remote"
    remote.mkdir()
    at_work.configure(BATON_WORKSPACE_REMOTE=f"file://{remote}/{{project}}.git")
    at_work.one(Build(project=P, user="ann", prompt="write a.txt: a"))
    beside = Build(project=P, user="ann", prompt="write b.txt: b", branch_from=at_work.head())
    assert at_work.one(beside).state == "done"
    assert list(remote.iterdir())
    assert main(["delete", "project", P, "--yes"]) == 0
    left = (*remote.iterdir(), *settings().workspaces.rglob("*"))
    assert [path.name for path in left if path.name not in (".trees", ".branches")] == []


@pytest.mark.parametrize(("answer", "code"), [(b"n\n", 1), (b"y\n", 0)])
def test_at_a_terminal_it_asks_first(
    conn: Connection,
    dsn: str,
    redis_url: str,
    environment: dict[str, str],
    checkout: Path,
    answer: bytes,
    code: int,
):
    built(conn)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [BATON, "delete", "project", "p"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"DATABASE_URL": dsn, "REDIS_URL": redis_url},
        cwd=checkout,
    ) as running:
        os.close(theirs)
        os.write(ours, answer)
        out, err = running.communicate(timeout=100)
    os.close(ours)
    assert running.returncode == code, err
    assert b"Delete project p for good (" in err
    assert (b"Nothing was deleted." in err) == (code == 1)
    assert (b"Deleted: project p." in out) == (code == 0)
    assert one(conn, "select count(*) from projects") == code
