"""The agent's own git: it works in the workspace, finds nothing around it, and runs nothing there."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.hosts import git
from tests.machine import needs_bubblewrap
from tests.running import AtWork

ME = ("-c", "user.name=Mary Outer", "-c", "user.email=mary@outer.example")
OUTER = ("outer-branch", "Mary Outer", "what nobody is told of")


@pytest.fixture
def outer(at_work: AtWork, tmp_path: Path) -> Path:
    """A repository around all workspaces, as a checkout is."""
    subprocess.run(["git", "init", "-q", "-b", OUTER[0], tmp_path], check=True)
    for name, value in (("user.name", OUTER[1]), ("user.email", "mary@outer.example")):
        git(tmp_path / ".git", "config", name, value)
    git(tmp_path / ".git", *ME, "commit", "-q", "--allow-empty", "-m", OUTER[2])
    return tmp_path / ".git"


SANDBOX = [pytest.param("off"), pytest.param("auto", marks=needs_bubblewrap)]


@pytest.mark.parametrize("sandbox", SANDBOX)
def test_an_agent_neither_commits_to_an_outer_repository_nor_hears_of_it(
    at_work: AtWork, outer: Path, sandbox: str
):
    at_work.configure(BATON_SANDBOX=sandbox, GIT_CEILING_DIRECTORIES=None)
    job = at_work.build(
        "run: git commit -q --allow-empty -m theirs\n"
        "run: mkdir -p sub && cd sub && git add -A . ; git commit -q --allow-empty -m theirs\n"
        "run: git rev-parse --git-dir > found.txt; true"
    )
    assert job.state == "done"
    assert git(outer, "log", "--format=%s") == [OUTER[2]]
    assert (at_work.place / "found.txt").read_text() == ""
    told = json.dumps([seen.body for seen in at_work.model.requests])
    assert not [secret for secret in OUTER if secret in told]


@pytest.mark.parametrize("sandbox", SANDBOX)
def test_its_own_repository_works_in_every_directory_and_runs_nothing(
    at_work: AtWork, outer: Path, sandbox: str
):
    at_work.configure(BATON_SANDBOX=sandbox, GIT_CEILING_DIRECTORIES=None)
    job = at_work.build(
        "run: git init -q . && git config user.name x && git config user.email x@y\n"
        'run: git config core.fsmonitor "touch monitored; false" && mkdir -p hooks sub\n'
        "run: printf '#!/bin/sh\\ntouch hooked\\n' > hooks/pre-commit\n"
        "run: chmod +x hooks/pre-commit; cp hooks/pre-commit .git/hooks/\n"
        "run: git config core.hooksPath hooks; echo 1 > sub/a\n"
        "run: cd sub && git add a && git commit -q -m own && git status --short"
    )
    assert job.state == "done"
    assert git(at_work.place / ".git", "log", "--format=%s") == ["own"]
    made = {path.name for path in at_work.place.iterdir()}
    assert not {"monitored", "hooked"} & made
