"""Upkeep of workspaces' repositories: they stay small, and all one can go back to stays."""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from config.settings import settings
from db.projects import branches, projects
from tests.hosts import Hosts, aside, files, git, kept, writes
from tests.hosts import hosts as hosts
from tests.running import AtWork, P, U
from worker.agent import Request, Turn
from worker.client import Build
from worker.process import crash_points
from worker.workspace import git as git_module
from worker.workspace import refs as history
from worker.workspace import repositories, workspace
from worker.workspace.repositories import Tended, tend
from worker.workspace.repository import Repository
from worker.workspace.trees import ATTRIBUTES, Trees

pytestmark = pytest.mark.agent("direct")

DAY = 86400.0  # seconds
LINES = 400


def content(turn: int) -> str:
    """A file of which each turn changes a line."""
    return "".join(f"line {n}: {max(turn - n, 0)} {n * 7919}\n" for n in range(LINES))


def writes_much(request: Request, **more: Any) -> Turn:
    """Three files, as of the number that the prompt is."""
    for name in "abc":
        (request.cwd / f"{name}.txt").write_text(content(int(request.prompt)) + name)
    return writes(request, **more)


def repository() -> Repository:
    return Repository(workspace.repository(P), settings().workspaces)


def stored(place: Path) -> int:
    """Bytes on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in place.rglob("*"))


def age(*places: Path) -> None:
    """Let all that is stored have been written three days ago."""
    at = time.time() - 3 * DAY
    for place in places:
        for path in place.rglob("objects/**/*"):
            if path.is_file():
                os.utime(path, (at, at))


def upkeep(at_work: AtWork, *, days: float = 0) -> Tended:
    """Tend the project, as if so many days from now; what is stored is old by then."""
    age(settings().workspaces / ".trees")
    done = tend(at_work.conn, P, now=time.time() + days * DAY)
    assert done
    return done


def lost_turn(at_work: AtWork, name: str, text: str) -> str:
    """What a dead attempt has left, as the next one puts it aside; the ref."""
    trees = Trees(workspace.repository(P), at_work.place)
    trees.point(f"{history.BEGUN}/{uuid4()}", str(trees.ref(history.HEAD)))
    (at_work.place / name).write_text(text)
    ref = history.put_lost_aside(trees)
    assert ref
    return ref


def blob_of(ref: str, name: str) -> str:
    return git(workspace.repository(P), "rev-parse", f"{ref}:{name}")[0]


def has(oid: str) -> bool:
    where = f"--git-dir={workspace.repository(P)}"
    return subprocess.run(["git", where, "cat-file", "-e", oid], check=False).returncode == 0


@pytest.mark.long
def test_thirty_turns_are_small_after_it_and_one_can_go_back_to_each(at_work: AtWork):
    at_work.agent = writes_much
    sessions = list[str]()
    for turn in range(15):
        at_work.build(str(turn))
        sessions.append(str(at_work.head()))
    projects.rewind(at_work.conn, P, sessions[4])
    for turn in range(15, 30):
        at_work.build(str(turn))
        sessions.append(str(at_work.head()))
    assert len(aside(at_work)) == 1, "fourteen made way for four"
    place = workspace.repository(P)
    before = stored(place)
    assert upkeep(at_work).packed
    assert stored(place) < before / 8
    upkeep(at_work, days=31)
    assert repository().refs(history.ASIDE) == []
    git(place, "fsck", "--strict", "--no-dangling")
    trees = [tree for (tree,) in at_work.rows("select tree from project_versions order by id")]
    assert len(trees) == 30
    for turn, tree in enumerate(trees):
        expected = content(turn) + "b"
        assert kept(tree)["b.txt"] == expected.rstrip("\n"), turn
    projects.rewind(at_work.conn, P, sessions[12])
    at_work.chat("write d.txt: d")
    assert (at_work.place / "a.txt").read_text() == content(12) + "a"


def test_what_was_set_aside_goes_in_its_time_and_its_files_with_it(at_work: AtWork):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    ref = lost_turn(at_work, "half.txt", "half done")
    blob = blob_of(ref, "half.txt")
    upkeep(at_work)
    upkeep(at_work, days=29)
    assert repository().ref(ref)
    assert has(blob)
    assert upkeep(at_work, days=30.1).gone == 1
    assert repository().ref(ref) is None
    assert not has(blob)
    at_work.build("write b.txt: b")
    assert files(at_work.place) == {"a.txt": "a", "b.txt": "b"}


def test_how_long_it_stays_is_set_with_the_jobs(at_work: AtWork):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    ref = lost_turn(at_work, "half.txt", "half done")
    upkeep(at_work)
    at_work.configure(BATON_JOBS_KEPT="3600")
    upkeep(at_work, days=0.1)
    assert repository().ref(ref) is None


def test_a_session_that_cannot_be_resumed_any_more_keeps_no_files(at_work: AtWork):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    first = str(at_work.head())
    at_work.build("write b.txt: only here")
    second, tree = str(at_work.head()), repository().ref(history.HEAD)
    assert tree
    projects.rewind(at_work.conn, P, first)
    at_work.build("write c.txt: c")
    blob = blob_of(tree, "b.txt")
    upkeep(at_work)
    upkeep(at_work, days=31)
    assert repository().refs(history.KEPT) == [f"{history.KEPT}/{tree}"]
    at_work.conn.execute(
        "update project_ai_session_metrics set is_resumable = false where session_id = %s",
        (second,),
    )
    upkeep(at_work, days=32)
    assert has(blob), "its version is there"
    at_work.conn.execute("delete from project_versions where ai_session_id = %s", (second,))
    upkeep(at_work, days=33)
    assert repository().refs(history.KEPT) == []
    assert not has(blob)


def test_what_a_turn_has_just_written_is_not_touched(at_work: AtWork):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    age(workspace.repository(P))
    told = subprocess.run(
        ["git", f"--git-dir={workspace.repository(P)}", "hash-object", "-w", "--stdin"],
        input=b"without a ref yet",
        capture_output=True,
        check=True,
    )
    oid = told.stdout.decode().strip()
    lost_turn(at_work, "half.txt", "half done")
    assert tend(at_work.conn, P, now=time.time())
    assert tend(at_work.conn, P, now=time.time() + 40 * DAY)
    assert has(oid)
    upkeep(at_work)
    assert not has(oid)


def test_a_branch_goes_on_with_what_it_borrows(at_work: AtWork):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    head = at_work.head()
    at_work.build("write later.txt: later")
    beside = Build(project=P, user=U, prompt="write b.txt: b", branch_from=head)
    lane = at_work.one(beside).lane
    main_lost = lost_turn(at_work, "same.txt", "written in both\n" * 100)
    place = settings().workspaces / ".branches" / P / lane
    theirs = Trees(workspace.branches(P) / f"{lane}.git", place)
    theirs.point(f"{history.BEGUN}/{uuid4()}", str(theirs.ref(history.HEAD)))
    (place / "same.txt").write_text("written in both\n" * 100)
    ref = history.put_lost_aside(theirs)
    assert ref
    upkeep(at_work)
    repository().forget(main_lost)
    upkeep(at_work, days=2)
    git(workspace.repository(P), "fsck", "--strict", "--no-dangling")
    git(theirs.git_dir, "fsck", "--strict", "--no-dangling")
    assert git(theirs.git_dir, "show", f"{ref}:same.txt")[0] == "written in both"
    (branch,) = branches.of_project(at_work.conn, P)
    more = Build(project=P, user=U, prompt="write c.txt: c", branch_from=branch.head)
    assert at_work.one(more).state == "done"
    assert files(place) == {"a.txt": "a", "b.txt": "b", "c.txt": "c"}
    assert not list((theirs.git_dir / "objects" / "pack").glob("*.pack")), "all is borrowed"


def test_refs_of_a_branch_that_is_gone_go_too(at_work: AtWork):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    main = repository()
    gone = workspace.branches(P) / "branch-x.git"
    Trees(gone, settings().workspaces).create()
    upkeep(at_work)
    assert main.refs(history.LENT) == [f"{history.LENT}/branch-x/index"]
    for path in sorted(gone.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    gone.rmdir()
    upkeep(at_work)
    assert main.refs(history.LENT) == []


def test_a_ref_of_a_branch_goes_when_that_has_ended_and_nothing_else_of_it_is_here(
    at_work: AtWork,
):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    head = at_work.head()
    for name in "bcd":
        asked = Build(project=P, user=U, prompt=f"write {name}.txt: {name}", branch_from=head)
        at_work.one(asked)
    promoted, dropped, stays = branches.of_project(at_work.conn, P)
    branches.promote(at_work.conn, P, promoted.lane)
    branches.drop(at_work.conn, P, dropped.lane)
    at_work.conn.execute("update jobs set finished_at = now() - interval '1 h'")
    main = repository()
    refs = {each.lane: f"{history.BRANCHES}/{each.lane}" for each in (promoted, dropped, stays)}
    upkeep(at_work)
    assert set(main.refs(history.BRANCHES)) == set(refs.values()), "their directories are here"
    for place in (workspace.branches(P), settings().workspaces / ".branches" / P):
        shutil.rmtree(place)
    upkeep(at_work)
    assert main.refs(history.BRANCHES) == [refs[stays.lane]]
    upkeep(at_work)
    kept_for_good = {tree for tree in (promoted.tree, stays.tree) if tree}
    assert set(main.pointed(history.KEPT).values()) == kept_for_good
    assert dropped.tree
    assert not has(dropped.tree)
    at_work.build("write e.txt: e")
    assert files(at_work.place) == {"a.txt": "a", "b.txt": "b", "e.txt": "e"}


def test_a_repository_at_which_somebody_works_is_left_to_the_next_run(at_work: AtWork):
    found = list[Tended | None]()

    def looked_after(request: Request, **more: Any) -> Turn:
        found.append(tend(at_work.conn, P, now=time.time()))
        return writes(request, **more)

    at_work.agent = looked_after
    at_work.build("write a.txt: a")
    assert found == [None], "its job runs"
    before = sorted(workspace.repository(P).rglob("*"))
    with repository().held():
        assert tend(at_work.conn, P, now=time.time()) is None
    assert sorted(workspace.repository(P).rglob("*")) == before
    assert tend(at_work.conn, P, now=time.time())


def test_a_turn_that_did_not_wait_for_it_loses_nothing(
    at_work: AtWork, monkeypatch: pytest.MonkeyPatch
):
    """A job waits for a held repository only so long, and works beside the packing then."""
    at_work.agent = writes
    at_work.build("write a.txt: a")
    reached = list[str]()

    def strike(point: str) -> None:
        reached.append(point)
        age(workspace.repository(P))
        repository().pack()

    monkeypatch.setattr(crash_points, "strike", strike)
    for n in range(3):
        assert at_work.build(f"write b{n}.txt: {n}").state == "done"
    monkeypatch.setattr(crash_points, "strike", None)
    assert {"workspace.begun", "tree.made", "workspace.confirmed"} <= set(reached)
    git(workspace.repository(P), "fsck", "--strict", "--no-dangling")
    assert files(at_work.place) == {"a.txt": "a", "b0.txt": "0", "b1.txt": "1", "b2.txt": "2"}


def test_a_turn_that_was_committed_and_not_settled_is_settled_and_others_are_lost(
    at_work: AtWork,
):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    first = str(repository().ref(history.HEAD))
    at_work.build("write b.txt: b")
    main, committed = repository(), str(repository().ref(history.HEAD))
    main.point(history.HEAD, first)
    attempt = uuid4()
    main.point(f"{history.MADE}/{attempt}", committed)
    main.point(f"{history.BEGUN}/{attempt}", first)
    upkeep(at_work)
    assert main.pointed("refs/baton") == {history.HEAD: committed}
    nothing = lost_turn(at_work, "c.txt", "c")
    main.point(f"{history.MADE}/{uuid4()}", str(main.ref(nothing)))
    upkeep(at_work)
    assert main.refs(history.MADE) == []
    assert main.ref(history.HEAD) == committed


def test_each_period_it_is_done_once_and_a_project_once_a_day(at_work: AtWork):
    at_work.configure(BATON_UPKEEP_EVERY="600")
    at_work.agent = writes
    assert repositories.run_once() == 0, "there is no repository"
    at_work.build("write a.txt: a")
    assert repositories.run_once() == 1
    assert repositories.run_once() == 0
    lock, notes = settings().workspaces / ".trees" / ".upkeep.lock", repository().git_dir
    for path, hours, expected in ((lock, 1, 0), (notes / repositories.NOTES, 25, 1)):
        at = time.time() - hours * 3600
        os.utime(lock, (time.time() - 3600, time.time() - 3600))
        os.utime(path, (at, at))
        assert repositories.run_once() == expected


def test_a_damaged_repository_does_not_hold_up_the_others(at_work: AtWork):
    at_work.configure(BATON_UPKEEP_EVERY="600")
    at_work.agent = writes
    at_work.one(Build(project="other", user=U, prompt="write a.txt: a"))
    at_work.build("write a.txt: a")
    (workspace.repository("other") / "refs" / "baton" / "head").write_text("nonsense\n")
    assert repositories.run_once() == 1
    assert (workspace.repository("other") / repositories.NOTES).exists(), "not at once again"


def test_a_repository_of_a_project_that_the_ledger_does_not_know_is_left_alone(at_work: AtWork):
    other = Trees(workspace.repository("imported"), settings().workspaces)
    other.path.mkdir(parents=True, exist_ok=True)
    other.create()
    before = sorted(other.git_dir.rglob("*"))
    assert tend(at_work.conn, "imported", now=time.time()) is None
    assert sorted(other.git_dir.rglob("*")) == before


def test_no_hook_runs_in_it(at_work: AtWork, tmp_path: Path):
    at_work.agent = writes
    at_work.build("write a.txt: a")
    lost_turn(at_work, "half.txt", "half")
    folder = repository().git_dir / "hooks"
    folder.mkdir()
    for hook in ("pre-auto-gc", "reference-transaction", "post-rewrite"):
        (folder / hook).write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        (folder / hook).chmod(0o755)
    upkeep(at_work)
    assert upkeep(at_work, days=31).packed
    assert not (tmp_path / "ran").exists()


def test_the_remote_forgets_what_the_ledger_does_not_name_any_more(hosts: Hosts):
    at_work = hosts.at_work
    at_work.build("write a.txt: a")
    first = str(at_work.head())
    at_work.build("write b.txt: b")
    remote = hosts.remote / f"{P}.git"
    lost = repository().commit_index()
    repository().push(f"file://{remote}", f"{lost}:{history.MADE}/{uuid4()}")
    upkeep(at_work)
    assert lost in hosts.sent(), "it may be of an import that the ledger will name"
    upkeep(at_work, days=1.1)
    named = {tree for (tree,) in at_work.rows("select tree from project_versions")}
    assert hosts.sent() == named
    at_work.conn.execute(
        "update project_ai_session_metrics set is_resumable = false where session_id = %s",
        (first,),
    )
    at_work.conn.execute("delete from project_versions where ai_session_id = %s", (first,))
    hosts.away()
    upkeep(at_work, days=3)
    hosts.away(False)
    upkeep(at_work, days=4)
    upkeep(at_work, days=6)
    assert len(hosts.sent()) == 1
    place = hosts.on("two")
    at_work.chat("what?")
    assert files(place) == {"a.txt": "a", "b.txt": "b"}


def test_git_is_asked_again_where_a_packing_took_its_directory_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """That moment is too short to be met; what git says then was seen under load."""
    trees = Trees(tmp_path / "x.git", tmp_path / "files")
    trees.path.mkdir()
    trees.create()
    (trees.path / "a.txt").write_text("a")
    wrapper, said = tmp_path / "bin" / "git", git_module.VANISHED
    wrapper.parent.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\n[ -e {tmp_path}/told ] && exec {shutil.which("git")} "$@"\n'
        f"touch {tmp_path}/told; echo 'error: {said}' >&2; exit 128\n"
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    assert trees.names(trees.snapshot("x", parent=None)) == ["a.txt"]
    assert (tmp_path / "told").exists()


def test_what_is_as_it_should_be_is_not_written_again(tmp_path: Path):
    trees = Trees(tmp_path / "x.git", tmp_path)
    trees.create()
    attributes = trees.git_dir / "info" / "attributes"
    before = attributes.stat().st_mtime_ns
    os.utime(attributes, ns=(before - 10**9, before - 10**9))
    trees.create()
    assert attributes.stat().st_mtime_ns == before - 10**9
    attributes.write_text("* filter=evil\n")
    with attributes.open() as reader:
        trees.create()
        assert reader.read() == "* filter=evil\n", "who reads it reads one or the other"
    assert attributes.read_text() == ATTRIBUTES
    assert [path.name for path in attributes.parent.iterdir()] == ["attributes"]


def test_of_two_that_tend_at_once_one_does(at_work: AtWork, monkeypatch: pytest.MonkeyPatch):
    at_work.configure(BATON_UPKEEP_EVERY="600")
    at_work.agent = writes
    at_work.build("write a.txt: a")
    seen = list[int]()

    def meanwhile(conn: Any, project_id: str, *, now: float) -> Tended | None:
        seen.append(repositories.run_once())
        return tend(conn, project_id, now=now)

    monkeypatch.setattr(repositories, "tend", meanwhile)
    assert repositories.run_once() == 1
    assert seen == [0]
