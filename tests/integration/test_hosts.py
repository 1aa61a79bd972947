"""A project's files on several hosts, with a git remote between them (tests/hosts.py)."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from config.settings import BadSettings, settings
from db.jobs import jobs, rescue
from tests.conftest import Configure
from tests.hosts import Hosts, aside, files, git, kept, trees, writes
from tests.hosts import hosts as hosts
from tests.invariants import violations
from tests.running import P, U
from worker.agent import Request, Turn
from worker.agent.claude import claude
from worker.client import Build, ChatPlan, Update
from worker.failures.errors import HeadMoved
from worker.process import crash_points
from worker.sandbox import box

pytestmark = pytest.mark.agent("direct")


def test_a_project_goes_on_on_a_host_that_has_never_seen_it(hosts: Hosts):
    at_work = hosts.at_work
    at_work.agent = claude
    at_work.build("write a.txt: a")
    two = hosts.on("two")
    at_work.build("write b.txt: b")
    assert files(two) == {"a.txt": "a", "b.txt": "b"}
    assert at_work.model.requests[-1].prompts[:2] == ("write a.txt: a", "write b.txt: b")
    one = hosts.on("one")
    at_work.chat("say what")
    assert files(one) == files(two)
    assert aside(at_work) == []
    first, second, third, now = trees(at_work)
    assert first != second == third == now
    assert violations(at_work.conn) == []


@pytest.mark.agent("direct")
def test_each_part_of_a_chain_may_run_on_another_host(hosts: Hosts):
    at_work = hosts.at_work
    asked = at_work.ask(Build(project=P, user=U, prompt="write a.txt: a"))
    at_work.run(asked)
    place = hosts.on("two")
    (_, metadata, *_) = jobs.chain(at_work.conn, asked)
    at_work.run(metadata.id, claude)
    assert at_work.job(metadata.id).state == "done"
    assert set(files(place)) == {"a.txt", "DOCUMENTATION.md"}
    at_work.chain_of(asked)
    place = hosts.on("three")
    at_work.chat("what?")
    assert set(files(place)) == {"a.txt", "DOCUMENTATION.md"}
    (version,) = at_work.rows("select tree from project_versions")
    assert version[0] == trees(at_work)[-1]


def test_what_people_changed_on_a_host_that_was_left_behind_makes_way(hosts: Hosts):
    at_work, one = hosts.at_work, hosts.on("one")
    at_work.build("write a.txt: a")
    (one / "a.txt").write_text("by hand")
    (one / "mine.txt").write_text("mine")
    hosts.on("two")
    at_work.build("write b.txt: b")
    hosts.on("one")
    at_work.chat("what?")
    assert files(one) == {"a.txt": "a", "b.txt": "b"}
    (ref,) = aside(at_work)
    assert kept(ref) == {"a.txt": "by hand", "mine.txt": "mine"}
    at_work.chat("and now?")
    assert aside(at_work) == [ref], "it is told once"


def test_files_of_somebody_else_in_an_unknown_workspace_make_way(hosts: Hosts):
    at_work = hosts.at_work
    at_work.build("write a.txt: a")
    two = hosts.on("two")
    two.mkdir(parents=True)
    (two / "old.txt").write_text("old")
    (two / ".git").mkdir()
    at_work.build("write b.txt: b")
    assert files(two) == {"a.txt": "a", "b.txt": "b"}
    (ref,) = aside(at_work)
    assert kept(ref) == {"old.txt": "old"}


def test_the_ledger_says_what_is_newest_and_no_ref_does(hosts: Hosts):
    at_work = hosts.at_work
    at_work.build("write a.txt: a")
    first = trees(at_work)[-1]
    at_work.build("write b.txt: b")
    for ref in ("refs/heads/main", "refs/baton/head"):
        git(hosts.remote / f"{P}.git", "update-ref", ref, str(first))
    place = hosts.on("two")
    at_work.chat("what?")
    assert files(place) == {"a.txt": "a", "b.txt": "b"}


def test_a_job_waits_for_a_remote_that_is_away_and_nothing_is_half(hosts: Hosts):
    at_work = hosts.at_work
    at_work.build("write a.txt: a")
    place = hosts.on("two")
    hosts.away()
    job = at_work.build("write b.txt: b")
    assert (job.state, job.error_class, job.attempts) == ("queued", "workspace_away", 0)
    assert job.error
    assert "cannot be fetched from BATON_WORKSPACE_REMOTE" in job.error
    assert at_work.turns(job.id) == []
    assert files(place) == {}
    hosts.away(False)
    assert at_work.again(job.id).state == "done"
    assert files(place) == {"a.txt": "a", "b.txt": "b"}


@pytest.mark.agent("direct")
def test_a_turn_whose_files_cannot_be_sent_is_committed_later_and_not_run_again(hosts: Hosts):
    at_work = hosts.at_work
    at_work.build("write a.txt: a", agent=claude)
    head = at_work.head()

    def while_it_goes_away(request: Request, **more: Any) -> Turn:
        turn = claude(request, **more)
        hosts.away()
        return turn

    job = at_work.build("write b.txt: b", agent=while_it_goes_away)
    assert (job.state, job.error_class) == ("queued", "workspace_away")
    calls = len(at_work.model.requests)
    assert at_work.again(job.id).error_class == "workspace_away"
    assert at_work.head() == head
    hosts.away(False)
    assert at_work.again(job.id).state == "done"
    assert len(at_work.model.requests) == calls, "no model was asked again"
    jobs.cancel(at_work.conn, job.id)
    assert [turn["outcome"] for turn in at_work.turns(job.id)] == ["committed"]
    assert aside(at_work) == []
    place = hosts.on("two")
    at_work.chat("what?")
    assert files(place) == {"a.txt": "a", "b.txt": "b"}
    assert violations(at_work.conn) == []


def test_a_remote_that_cannot_be_written_is_no_failure_of_the_job(hosts: Hosts):
    (hosts.remote / f"{P}.git").write_text("in the way")
    job = hosts.at_work.build("write a.txt: a")
    assert (job.state, job.error_class) == ("queued", "workspace_away")
    assert job.error
    assert "cannot be sent to BATON_WORKSPACE_REMOTE" in job.error
    (hosts.remote / f"{P}.git").unlink()
    assert hosts.at_work.again(job.id).state == "done"


@pytest.mark.parametrize("rescued_on", ["one", "two"])
def test_what_a_lost_attempt_has_sent_is_cleaned_away(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, rescued_on: str
):
    at_work = hosts.at_work
    at_work.build("write a.txt: a")

    def strike(point: str) -> None:
        if point == "commit.before":
            raise HeadMoved("as if another had been quicker")

    monkeypatch.setattr(crash_points, "strike", strike)
    job = at_work.build("write b.txt: b")
    assert job.error_class == "head_moved"
    assert len(hosts.sent()) == 2, "the lost one is there"
    monkeypatch.setattr(crash_points, "strike", None)
    hosts.on(rescued_on)
    assert at_work.again(job.id).state == "done"
    assert hosts.sent() == set(trees(at_work))


def test_what_a_replaced_attempt_sends_late_harms_nothing(hosts: Hosts):
    at_work = hosts.at_work
    at_work.build("write a.txt: a")

    def too_late(request: Request, **more: Any) -> Turn:
        """While it works on host two, its job is taken over and done on host one."""
        turn = writes(request, **more)
        (request.cwd / "late.txt").write_text("late")
        assert rescue.rescue(at_work.conn, asked, attempt=request.attempt, limit=9) == "queued"
        hosts.on("one")
        assert at_work.run(asked).state == "done"
        hosts.on("two")
        return turn

    hosts.on("two")
    asked = at_work.ask(Update(project=P, user=U, prompt="write b.txt: b"))
    assert at_work.run(asked, too_late).state == "ignored"
    jobs.cancel(at_work.conn, asked)
    assert len(hosts.sent()) == 3, "the late one is there"
    place = hosts.on("three")
    at_work.chat("what?")
    assert files(place) == {"a.txt": "a", "b.txt": "b"}
    hosts.on("two")
    at_work.chat("and what here, where the late one was?")
    assert files(at_work.place) == files(place)
    assert hosts.sent() == set(trees(at_work))
    assert violations(at_work.conn) == []


def test_a_project_id_is_quoted_and_hooks_of_the_remote_do_not_run(
    hosts: Hosts, tmp_path: Path
):
    at_work, project = hosts.at_work, "a@b+c=d:e"
    remote = hosts.remote / f"{project}.git"
    subprocess.run(["git", "init", "-q", "--bare", remote], check=True)
    for hook in ("pre-receive", "update", "post-receive", "post-update"):
        (remote / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (remote / "hooks" / hook).chmod(0o755)
    assert at_work.one(Build(project=project, user=U, prompt="write a.txt: a")).state == "done"
    hosts.on("two")
    assert at_work.one(ChatPlan(project=project, user=U, prompt="what?")).state == "done"
    assert files(settings().workspaces / project) == {"a.txt": "a"}
    assert [path.name for path in hosts.remote.iterdir()] == [remote.name]
    assert not (tmp_path / "ran").exists()


def test_the_agent_sees_nothing_of_the_remote(hosts: Hosts, monkeypatch: pytest.MonkeyPatch):
    at_work = hosts.at_work
    monkeypatch.setenv("SSH_AUTH_SOCK", "/agent/socket")
    at_work.build("run: env > env.txt", agent=claude)
    at_work.build(f"run: ls {hosts.remote} > ls.txt", agent=claude)
    told = (at_work.place / "env.txt").read_text()
    assert "PATH=" in told
    assert "WORKSPACE_REMOTE" not in told
    assert "/agent/socket" not in told
    if box.found().way:
        assert (at_work.place / "ls.txt").read_text() == ""


@pytest.mark.parametrize(
    "url",
    [
        "/srv/trees/{project}.git",
        "file:///srv/trees.git",
        "ext::sh -c {project}",
        "file://srv/{project}",
        "ssh://host/{project}/{user}",
        "ssh://{project}/x",
    ],
)
def test_an_address_that_no_remote_can_have_is_refused(configure: Configure, url: str):
    configure(BATON_WORKSPACE_REMOTE=url)
    with pytest.raises(BadSettings, match=r"BATON_WORKSPACE_REMOTE is not usable: .*project"):
        settings()


def test_without_a_remote_files_that_are_not_here_are_waited_for(hosts: Hosts):
    at_work = hosts.at_work
    at_work.configure(BATON_WORKSPACE_REMOTE=None)
    at_work.build("write a.txt: a")
    place = hosts.on("two")
    job = at_work.chat("what?")
    assert (job.state, job.error_class) == ("queued", "workspace_away")
    assert job.error
    assert "are not on this host" in job.error
    (place / "a.txt").write_text("restored by hand")
    assert at_work.again(job.id).state == "done"
    at_work.build("write b.txt: b")
    assert files(place) == {"a.txt": "restored by hand", "b.txt": "b"}
