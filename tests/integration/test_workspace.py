"""The workspace: what is kept of each turn, and what lies there configures nothing."""

import os
import shutil
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest

from config.settings import settings
from db.jobs.attempts import Claimed
from worker.failures.errors import BadRequest, GitEnded
from worker.text.file_names import LeftOut
from worker.workspace import reading, workspace
from worker.workspace.trees import Trees
from worker.workspace.workspace import AsFound

NEVER = "nothing is committed"


def job(place: str | None = None) -> Claimed:
    """A running build of the project `shop`, in its own workspace unless one is given."""
    return Claimed(
        id=uuid4(),
        attempt=uuid4(),
        chain_id=uuid4(),
        parent_id=None,
        project_id="shop",
        user_id="ann",
        lane="main",
        kind="build",
        args={},
        version_id=None,
        previous_session_id=None,
        attempts=1,
        rescues=0,
        result=None,
        head=None,
        workspace=place,
        fresh_next=False,
        told=[],
    )


# It ends in the middle of `git init … PLACE`.
KILLED_GIT = """#!/bin/sh
for place; do :; done
mkdir "$place" && echo "ref: refs/heads/master" > "$place/HEAD"
kill -TERM $$
"""


@pytest.fixture
def place() -> Path:
    return provided(job())


def provided(one: Claimed, *committed: str) -> Path:
    assert workspace.provide(one, committed=lambda tree: tree in committed) == []
    return workspace.place(one)


def began(place: Path, *committed: str) -> tuple[Claimed, AsFound]:
    one = job()
    assert provided(one, *committed) == place
    return one, workspace.begin(one, place)


def turn(place: Path, **files: str) -> str:
    """A whole turn that writes these files; its commit."""
    one, begun = began(place)
    for name, text in files.items():
        (place / name).write_text(text)
    commit = workspace.finish(one, begun).commit
    workspace.confirm(one, begun, commit, earlier=set())
    return commit


def kept(ref: str) -> dict[str, str]:
    """The files of a commit, with what is in them."""
    trees = Trees(settings().workspaces / ".trees" / "shop.git", settings().workspaces)
    names = trees._git("ls-tree", "-r", "--name-only", "-z", ref).split("\0")  # pyright: ignore[reportPrivateUsage]
    return {name: trees._git("show", f"{ref}:{name}") for name in names if name}  # pyright: ignore[reportPrivateUsage]


def test_a_turns_files_are_kept_and_those_it_made_are_named(place: Path):
    turn(place, a="1")
    one, begun = began(place)
    (place / "a").write_text("2")
    (place / "b").write_text("3")
    made = workspace.finish(one, begun)
    assert (made.created, made.created_count, made.left_out) == (["b"], 1, [])
    assert kept(made.commit) == {"a": "2", "b": "3"}


def test_a_turn_that_changes_files_takes_two_gits(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Of some milliseconds each; most of what a turn costs beside its agent."""
    turn(place, a="1")
    counting, log = tmp_path / "bin" / "git", tmp_path / "log"
    counting.parent.mkdir()
    counting.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexec {shutil.which("git")} "$@"\n')
    counting.chmod(0o755)
    monkeypatch.setenv("PATH", f"{counting.parent}:{os.environ['PATH']}")
    turn(place, a="2", b="3")
    assert len(log.read_text().splitlines()) == 2


def test_what_a_lost_attempt_left_is_kept_aside(place: Path):
    turn(place, a="1")
    lost, _ = began(place)
    (place / "a").write_text("half")
    (place / "b").write_text("half")
    _, begun = began(place)
    ref = f"refs/baton/lost/{lost.attempt}"
    assert begun.kept_aside == ref
    assert kept(ref) == {"a": "half", "b": "half"}
    assert (place / "a").read_text() == "1"
    assert not (place / "b").exists()


def test_a_lost_attempt_that_left_nothing_is_not_told_of(place: Path):
    turn(place, a="1")
    began(place)
    _, begun = began(place)
    assert begun.kept_aside is None


def test_what_people_change_between_turns_stays(place: Path):
    turn(place, a="1", b="2")
    (place / "a").write_text("by hand")
    (place / "b").unlink()
    _, begun = began(place)
    assert begun.kept_aside is None
    assert kept(begun.commit) == {"a": "by hand"}
    assert (place / "a").read_text() == "by hand"


def test_a_turn_that_was_committed_and_not_settled_is_not_taken_for_lost(place: Path):
    turn(place, a="1")
    one, begun = began(place)
    (place / "a").write_text("2")
    commit = workspace.finish(one, begun).commit  # and here its worker died, after the commit
    (place / "a").write_text("by hand")
    _, after = began(place, commit)
    assert after.kept_aside is None
    assert (place / "a").read_text() == "by hand"
    assert kept("refs/baton/head") == {"a": "2"}


def test_settling_an_older_turn_takes_nothing_from_an_attempt_that_began_after_it(place: Path):
    head = turn(place, a="1")
    unchanged, begun = began(place)
    assert (
        workspace.finish(unchanged, begun).commit == head
    )  # committed, and its worker died here
    dead, begun = began(place, head)
    (place / "a").write_text("2")
    workspace.finish(dead, begun)  # its worker died here too, before the commit
    following = job()
    provided(following, head)
    assert workspace.begin(following, place, after=dead.attempt).went_on


def test_a_workspace_that_was_emptied_is_no_attempts_work(place: Path):
    turn(place, a="1")
    dead, _ = began(place)
    (place / "a").unlink()  # its disk was lost, say
    following = job()
    provided(following)
    assert (place / "a").read_text() == "1"
    assert not workspace.begin(following, place, after=dead.attempt).went_on


def test_a_turn_that_was_finished_and_not_committed_is_lost(place: Path):
    turn(place, a="1")
    one, begun = began(place)
    (place / "a").write_text("2")
    workspace.finish(one, begun)
    _, after = began(place, NEVER)
    assert after.kept_aside
    assert (place / "a").read_text() == "1"


def test_a_directory_that_vanished_is_brought_back(place: Path):
    turn(place, a="1")
    for file in place.iterdir():
        file.unlink()
    place.rmdir()
    assert provided(job()) == place
    assert (place / "a").read_text() == "1"


def test_a_git_that_is_killed_while_it_makes_the_repository_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trees = Trees(tmp_path / "trees" / "shop.git", tmp_path)
    killed = tmp_path / "bin" / "git"
    killed.parent.mkdir()
    killed.write_text(KILLED_GIT)
    killed.chmod(0o755)
    with monkeypatch.context() as here:
        here.setenv("PATH", f"{killed.parent}:{os.environ['PATH']}")
        with pytest.raises(GitEnded):
            trees.create()
    assert not trees.exist()
    trees.create()
    assert trees.has(trees.snapshot("whole", parent=None))
    assert [each.name for each in trees.git_dir.parent.iterdir()] == ["shop.git"]


def test_the_locks_of_a_git_that_was_killed_with_its_host_do_not_stay(tmp_path: Path):
    trees = Trees(tmp_path / "shop.git", tmp_path)
    trees.create()
    trees.point("refs/baton/head", trees.snapshot("one", parent=None))
    trees._git("pack-refs", "--all")  # pyright: ignore[reportPrivateUsage]
    locks = ("index.lock", "packed-refs.lock", "HEAD.lock", "refs/baton/head.lock")
    for left in (*locks, "packed-refs.new"):
        (trees.git_dir / left).touch()
    trees.mend()
    later = trees.snapshot("two", parent=None)
    trees.point("refs/baton/head", later)
    assert trees.ref("refs/baton/head") == later
    trees.forget("refs/baton/head")
    assert trees.ref("refs/baton/head") is None


def test_a_repository_that_another_has_made_meanwhile_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trees = Trees(tmp_path / "shop.git", tmp_path)
    trees.create()
    commit = trees.snapshot("theirs", parent=None)
    looks = iter([False, True])  # it was not there at the first look

    def looked(_: Trees) -> bool:
        return next(looks)

    monkeypatch.setattr(Trees, "exist", looked)
    trees.create()
    assert trees.has(commit)


def test_a_repository_of_the_projects_own_is_left_alone(place: Path):
    git(place, "init", "-q")
    (place / "a").write_text("1")
    before = sorted(path.name for path in (place / ".git").iterdir())
    commit = turn(place, b="2")
    assert kept(commit) == {"a": "1", "b": "2"}
    assert sorted(path.name for path in (place / ".git").iterdir()) == before


@pytest.mark.parametrize("commits", [False, True])
def test_the_files_of_a_nested_repository_are_kept(place: Path, commits: bool):
    inner = place / "sub"
    inner.mkdir()
    git(inner, "init", "-q")
    (inner / "a").write_text("1")
    (inner / "link").symlink_to("a")
    if commits:
        git(inner, "add", "a")
        git(inner, *("-c", "user.name=x", "-c", "user.email=x@y"), "commit", "-qm", "x")
    commit = turn(place, b="2")
    assert kept(commit) == {"b": "2", "sub/a": "1", "sub/link": "a"}
    (inner / "a").unlink()
    assert set(kept(turn(place))) == {"b", "sub/link"}


def test_a_nested_repository_of_a_lost_attempt_is_set_aside_too(place: Path):
    turn(place, b="2")
    began(place)
    (place / "sub").mkdir()
    git(place / "sub", "init", "-q")
    (place / "sub" / "a").write_text("1")
    _, begun = began(place)
    assert begun.kept_aside
    assert "sub/a" in kept(begun.kept_aside)
    assert not (place / "sub").exists()


def git(where: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=where, check=True)


def test_nothing_in_the_workspace_runs_or_changes_bytes(place: Path, tmp_path: Path):
    marker = tmp_path / "ran"
    (place / ".gitattributes").write_text(
        "* filter=evil text eol=crlf ident working-tree-encoding=UTF-16\n"
    )
    (place / ".git").mkdir()
    (place / ".git" / "config").write_text(
        f"[core]\nfsmonitor=touch {marker}\nhooksPath={place}/hooks\n"
        f'[filter "evil"]\nclean=touch {marker}\nsmudge=touch {marker}\n'
    )
    (place / "hooks").mkdir()
    for name in ("post-index-change", "reference-transaction", "post-checkout"):
        (place / "hooks" / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (place / "hooks" / name).chmod(0o755)
    data = b"one\r\ntwo\n$Id$\n\xff\xfe\x00"
    (place / "data").write_bytes(data)
    turn(place)
    began(place)
    (place / "data").write_bytes(b"half")
    began(place)
    assert (place / "data").read_bytes() == data
    assert not marker.exists()


def test_names_and_contents_of_all_kinds_come_back_as_they_were(place: Path):
    content = {
        "größe 日本.txt": b"\x00\x01\xff" * 1000,
        "new\nline": b"x",
        " -rf *": b"y",
        "'quoted\"": b"z",
        "big": os.urandom(2**21),
        ":(glob)**": b"g",
    }
    for name, data in content.items():
        (place / name).write_bytes(data)
    (place / "link").symlink_to("/etc/passwd")
    os.mkfifo(place / "fifo")
    with open(os.fsencode(place) + b"/\xff\xfe", "wb") as file:  # noqa: PTH123 - no str has this name
        file.write(b"b")
    one, begun = began(place)
    assert begun.commit
    (place / "more").write_text("1")
    made = workspace.finish(one, begun)
    assert (made.created, made.left_out) == (["more"], [LeftOut("fifo", "pipe")])
    workspace.confirm(one, begun, made.commit, earlier=set())
    began(place)
    for name in content:
        (place / name).write_bytes(b"half")
    (place / "link").unlink()
    (place / "link").write_text("half")
    began(place)
    assert {name: (place / name).read_bytes() for name in content} == content
    assert str((place / "link").readlink()) == "/etc/passwd"
    assert all(name.encode() for name in reading.files(place))


def test_what_git_ignores_is_neither_kept_nor_touched(place: Path):
    (place / ".gitignore").write_text("node_modules/\n")
    (place / "node_modules" / "x").mkdir(parents=True)
    git(place / "node_modules" / "x", "init", "-q")
    (place / "node_modules" / "x" / "a").write_text("1")
    assert set(kept(turn(place, b="2"))) == {".gitignore", "b"}
    began(place)
    (place / "b").write_text("half")
    began(place)
    assert (place / "node_modules" / "x" / "a").exists()


def test_git_of_the_workers_environment_changes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    assert kept(turn(place, a="1")) == {"a": "1"}
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    "where", ["/etc", "relative", "{root}", "{root}/.trees/shop.git", "{root}/../x"]
)
def test_a_place_outside_of_the_root_is_refused(where: str):
    with pytest.raises(BadRequest):
        workspace.place(job(where.format(root=settings().workspaces)))


def test_a_link_that_leads_outside_is_refused(tmp_path: Path):
    root = settings().workspaces
    root.mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(BadRequest):
        provided(job(str(root / "out")))


def test_a_file_in_the_workspaces_place_is_told_of(tmp_path: Path):
    root = settings().workspaces
    root.mkdir(parents=True)
    (root / "shop").write_text("x")
    with pytest.raises(BadRequest, match="not a directory"):
        provided(job())


def test_of_a_file_only_its_beginning_is_read_and_nothing_through_a_link(place: Path):
    (place / "a").write_bytes(b"x" * 100 + b"\x00")
    (place / "b").symlink_to("/etc/passwd")
    assert reading.text(place / "a", limit=10) == "x" * 10
    assert reading.text(place / "b") == ""
    assert reading.text(place / "missing") == ""
