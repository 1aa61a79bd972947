"""A branch's files: as of the session it begins from, and gone from a host once it has ended.

Git's own `gc --prune=now` shows what is really kept.
"""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from config.settings import settings
from db.jobs import jobs
from db.jobs.jobs import Job
from db.operations import receipts
from db.projects import branches
from tests.hosts import Hosts, files, git, kept, writes
from tests.hosts import hosts as hosts
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.agent import Request, Turn
from worker.cli import main
from worker.client import Build
from worker.workspace import branch_places, repositories, workspace
from worker.workspace import refs as history
from worker.workspace.trees import Trees

pytestmark = pytest.mark.agent("direct")


@pytest.fixture
def working(at_work: AtWork) -> AtWork:
    """Jobs of a scripted agent: what is looked at are the files."""
    at_work.agent = writes
    return at_work


def ask_beside(at_work: AtWork, prompt: str, session: str | None) -> Job:
    asked = at_work.ask(Build(project=P, user=U, prompt=prompt, branch_from=session))
    return at_work.job(asked)


def beside(at_work: AtWork, prompt: str, session: str | None) -> Job:
    """A build on the branch that follows from the session, and its end."""
    return at_work.one(Build(project=P, user=U, prompt=prompt, branch_from=session))


def newest(at_work: AtWork, lane: str) -> str:
    return at_work.value("select head from branches where lane = %s", lane)


def place(lane: str) -> Path:
    return settings().workspaces / ".branches" / P / lane


def rest(at_work: AtWork) -> None:
    """Let all that has ended have ended long ago."""
    at_work.conn.execute(
        "update jobs set finished_at = now() - interval '1 h' where finished_at is not null"
    )


def prune() -> None:
    """What git itself does not hold to be needed goes."""
    repository = settings().workspaces / ".trees" / f"{P}.git"
    git(repository, "gc", "--quiet", "--prune=now")


def of_lane(lane: str) -> list[str]:
    """What this host has under the lane's name, refs included."""
    found = [str(path.relative_to(settings().workspaces)) for path in settings().workspaces.rglob(f"{lane}*")
             if "objects" not in path.parts and "refs" not in path.parts]  # fmt: skip
    repository = settings().workspaces / ".trees" / f"{P}.git"
    refs = git(repository, "for-each-ref", "--format=%(refname)", f"refs/baton/branches/{lane}")
    return sorted(found) + refs


def main_refs(below: str) -> list[str]:
    """The refs of one kind in the project's repository."""
    repository = settings().workspaces / ".trees" / f"{P}.git"
    return git(repository, "for-each-ref", "--format=%(refname)", f"refs/baton/{below}")


def lost_on(lane: str, name: str, text: str) -> str:
    """What a dead attempt has left on the branch, as the next one puts it aside; the ref."""
    trees = Trees(workspace.branches(P) / f"{lane}.git", place(lane))
    trees.point(f"{history.BEGUN}/{uuid4()}", str(trees.ref(history.HEAD)))
    (place(lane) / name).write_text(text)
    ref = history.put_lost_aside(trees)
    assert ref
    return ref


def test_a_branch_from_the_middle_of_another_has_the_files_of_that_time(working: AtWork):
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    middle = newest(working, lane)
    assert beside(working, "write c.txt: c", middle).lane == lane
    other = beside(working, "write d.txt: d", middle)
    assert other.lane != lane
    assert files(place(other.lane)) == {"a.txt": "a", "b.txt": "b", "d.txt": "d"}
    assert files(place(lane)) == {"a.txt": "a", "b.txt": "b", "c.txt": "c"}
    assert violations(working.conn) == []


def test_so_it_has_on_a_host_that_never_saw_the_other(hosts: Hosts):
    """Though git prunes there while the job runs."""

    def pruned_meanwhile(request: Request, **more: Any) -> Turn:
        prune()
        return writes(request, **more)

    at_work = hosts.at_work
    at_work.build("write a.txt: a")
    lane = beside(at_work, "write b.txt: b", at_work.head()).lane
    middle = newest(at_work, lane)
    beside(at_work, "write c.txt: c", middle)
    hosts.on("two")
    other = ask_beside(at_work, "write d.txt: d", middle)
    assert at_work.run(other.id, pruned_meanwhile).state == "done"
    assert files(place(other.lane)) == {"a.txt": "a", "b.txt": "b", "d.txt": "d"}


def test_of_a_dropped_branch_nothing_stays_and_all_of_the_others(working: AtWork):
    working.build("write a.txt: a")
    head = working.head()
    gone, stays = (beside(working, f"write {x}.txt: {x}", head).lane for x in "bc")
    branches.drop(working.conn, P, gone)
    assert branch_places.sweep(working.conn) == 0, "its worker may be at its bookkeeping"
    rest(working)
    before = of_lane(stays)
    assert len(before) == 4
    assert branch_places.sweep(working.conn) == 1
    assert of_lane(gone) == []
    assert of_lane(stays) == before
    assert branch_places.sweep(working.conn) == 0
    prune()
    beside(working, "write d.txt: d", newest(working, stays))
    assert files(place(stays)) == {"a.txt": "a", "c.txt": "c", "d.txt": "d"}
    assert files(working.place) == {"a.txt": "a"}


def test_a_branch_that_began_from_a_dropped_one_keeps_its_files(working: AtWork):
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    middle = newest(working, lane)
    beside(working, "write c.txt: c", middle)
    waiting = ask_beside(working, "write d.txt: d", middle)
    branches.drop(working.conn, P, lane)
    rest(working)
    assert branch_places.sweep(working.conn) == 1
    assert not place(lane).exists()
    prune()
    assert working.run(waiting.id).state == "done"
    assert files(place(waiting.lane)) == {"a.txt": "a", "b.txt": "b", "d.txt": "d"}


def test_a_promoted_branch_leaves_its_commit_to_the_main_line(working: AtWork):
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    tree = working.value("select tree from branches")
    branches.promote(working.conn, P, lane)
    rest(working)
    assert branch_places.sweep(working.conn) == 1
    assert of_lane(lane) == []
    assert main_refs("kept") == [f"refs/baton/kept/{tree}"], "nothing else leads to its commit"
    prune()
    working.build("write c.txt: c")
    assert files(working.place) == {"a.txt": "a", "b.txt": "b", "c.txt": "c"}


def test_once_the_main_line_has_the_commit_nothing_of_a_promoted_branch_stays(
    working: AtWork,
):
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    branches.promote(working.conn, P, lane)
    working.build("write c.txt: c")
    rest(working)
    assert branch_places.sweep(working.conn) == 1
    assert of_lane(lane) == []
    prune()
    assert main(["diff", P, lane, "--stat"]) == 0


def test_what_people_changed_on_a_promoted_branch_and_what_was_kept_aside_there_stays(
    working: AtWork,
):
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    lost = lost_on(lane, "half.txt", "half")
    (place(lane) / "b.txt").write_text("by hand")
    (place(lane) / "mine.txt").write_text("mine")
    branches.promote(working.conn, P, lane)
    rest(working)
    assert branch_places.sweep(working.conn) == 1
    assert of_lane(lane) == []
    (told,) = working.events("workspace.kept_aside")
    assert (told["ref"], told["branch"]) == (main_refs("aside")[0], lane)
    assert main_refs("lost") == [lost]
    prune()
    assert kept(told["ref"]) == {"a.txt": "a", "b.txt": "by hand", "mine.txt": "mine"}
    assert kept(lost) == {"a.txt": "a", "b.txt": "b", "half.txt": "half"}
    working.build("write c.txt: c")
    assert files(working.place) == {"a.txt": "a", "b.txt": "b", "c.txt": "c"}


def test_what_its_last_attempt_left_stays_too(working: AtWork):
    """That one was cancelled, and nobody came after it."""
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    trees = Trees(workspace.branches(P) / f"{lane}.git", place(lane))
    trees.point(f"{history.BEGUN}/{uuid4()}", str(trees.ref(history.HEAD)))
    (place(lane) / "half.txt").write_text("half")
    branches.promote(working.conn, P, lane)
    rest(working)
    assert branch_places.sweep(working.conn) == 1
    (told,) = working.events("workspace.kept_aside")
    assert told["ref"].startswith("refs/baton/lost/")
    prune()
    assert kept(told["ref"]) == {"a.txt": "a", "b.txt": "b", "half.txt": "half"}


def test_of_a_promoted_branch_that_nobody_touched_nothing_is_kept_aside(working: AtWork):
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    branches.promote(working.conn, P, lane)
    rest(working)
    assert branch_places.sweep(working.conn) == 1
    assert (working.events("workspace.kept_aside"), main_refs("aside")) == ([], [])


def test_of_a_dropped_branch_what_people_changed_goes_too(working: AtWork):
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    lost_on(lane, "half.txt", "half")
    (place(lane) / "mine.txt").write_text("mine")
    branches.drop(working.conn, P, lane)
    rest(working)
    assert branch_places.sweep(working.conn) == 1
    assert main_refs("aside") == main_refs("lost") == main_refs("kept") == []
    assert working.events("workspace.kept_aside") == []


def test_while_a_lane_has_work_its_files_stay(working: AtWork):
    """As when a job was asked for again just before its branch went in some other way."""
    working.build("write a.txt: a")
    job = beside(working, "write b.txt: b", working.head())
    jobs.again(working.conn, job.id)
    working.conn.execute("delete from branches")
    rest(working)
    assert branch_places.sweep(working.conn) == 0
    assert files(place(job.lane)) == {"a.txt": "a", "b.txt": "b"}


def test_what_the_ledger_does_not_know_is_left_alone(working: AtWork):
    working.build("write a.txt: a")
    unknown = settings().workspaces / ".branches" / "unknown" / "branch-x"
    other = place("mine")
    for each in (unknown, other):
        each.mkdir(parents=True)
    assert branch_places.sweep(working.conn) == 0
    assert unknown.is_dir()
    assert other.is_dir()


def test_a_directory_that_an_agent_has_closed_goes_too(working: AtWork):
    working.build("write a.txt: a")
    lane = beside(working, "write b.txt: b", working.head()).lane
    inner = place(lane) / "shut"
    inner.mkdir()
    (inner / "x").write_text("x")
    inner.chmod(0)
    branches.drop(working.conn, P, lane)
    rest(working)
    assert branch_places.sweep(working.conn) == 1
    assert of_lane(lane) == []


def test_a_deleted_users_branches_go_from_a_project_that_is_anothers_by_now(
    working: AtWork, capsys: pytest.CaptureFixture[str]
):
    working.build("write a.txt: a")
    lane = beside(working, "write secret.txt: secret", working.head()).lane
    working.conn.execute("update projects set user_id = 'eve'")
    assert repositories.run_once() == 1, "its refs are lent to the project's repository"
    assert main(["delete", "user", U, "--yes"]) == 0
    assert f"Removed {place(lane)}." in capsys.readouterr().out
    assert of_lane(lane) == []
    assert files(working.place) == {"a.txt": "a"}
    assert working.value("select files from deletions") > 0
    prune()
    repository = settings().workspaces / ".trees" / f"{P}.git"
    assert all(
        "secret.txt" not in git(repository, "ls-tree", "-r", "--name-only", commit)
        for commit in git(repository, "rev-list", "--all")
    )


def of_user(hosts: Hosts) -> tuple[str, str]:
    """A promoted and an open branch of ann in what is eve's project by now; their commits."""
    at_work = hosts.at_work
    at_work.build("write a.txt: a")
    promoted = beside(at_work, "write b.txt: b", at_work.head()).lane
    opened = beside(at_work, "write secret.txt: secret", at_work.head()).lane
    branches.promote(at_work.conn, P, promoted)
    at_work.conn.execute("update projects set user_id = 'eve'")
    trees = dict(at_work.rows("select lane, tree from branches"))
    return trees[promoted], trees[opened]


def test_they_go_from_the_remote_too_and_what_the_project_took_over_stays(hosts: Hosts):
    at_work = hosts.at_work
    promoted, opened = of_user(hosts)
    before = hosts.sent()
    assert {promoted, opened} < before
    hosts.on("two")
    assert main(["delete", "user", U, "--yes"]) == 0
    assert hosts.sent() == before - {opened}
    assert at_work.value("select remote_refs from deletions") == 1
    asked = at_work.one(Build(project=P, user="eve", prompt="write c.txt: c"))
    assert asked.state == "done"
    assert files(at_work.place) == {"a.txt": "a", "b.txt": "b", "c.txt": "c"}


def test_while_the_remote_is_away_the_deletion_is_open(
    hosts: Hosts, capsys: pytest.CaptureFixture[str]
):
    _, opened = of_user(hosts)
    hosts.away()
    assert main(["delete", "user", U, "--yes"]) == 1
    told = capsys.readouterr().err
    assert "BATON_WORKSPACE_REMOTE, are not removed" in told
    assert "Ask again" in told
    assert receipts.unfinished(hosts.at_work.conn)
    hosts.away(False)
    assert opened in hosts.sent()
    assert main(["delete", "user", U, "--yes"]) == 0
    assert opened not in hosts.sent()
    assert receipts.unfinished(hosts.at_work.conn) == []
