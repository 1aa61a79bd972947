"""Whether a workspace has changed is told without git where that is plain, and never wrongly."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import wait_until
from worker.workspace.listed import unchanged
from worker.workspace.trees import EMPTY, Trees


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    """A workspace that was kept just now, its files a moment before."""
    made = Trees(tmp_path / ".trees" / "shop.git", tmp_path / "shop")
    (made.path / "src").mkdir(parents=True)
    made.create()
    (made.path / "src" / "a.txt").write_text("one")
    (made.path / "run.sh").write_text("true")
    (made.path / "link").symlink_to("src")
    _a_moment(tmp_path)
    made.snapshot("kept", parent=None)
    return made


def _a_moment(place: Path) -> None:
    """Until what is written now has a later time than what was written before."""
    probe = place / "probe"
    probe.write_text("")
    before = probe.stat().st_mtime_ns

    def later() -> bool:
        probe.write_text("")
        return probe.stat().st_mtime_ns > before

    wait_until(later, description="a later time")


def seen(trees: Trees) -> str | None:
    return unchanged(trees.git_dir / "index", trees.path)


def test_what_did_not_change_is_known_with_its_tree(trees: Trees):
    commit = trees.snapshot("again", parent=None)
    assert seen(trees) == trees.tree(commit)


def _same_size_and_time(root: Path) -> None:
    file = root / "src" / "a.txt"
    was = file.stat()
    file.write_text("two")
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


def _put_in_its_place(root: Path) -> None:
    (root / "new").write_text("one")
    (root / "new").replace(root / "src" / "a.txt")


CHANGES: dict[str, Callable[[Path], object]] = {
    "other text of the same size and time": _same_size_and_time,
    "another file of the same text": _put_in_its_place,
    "a file more": lambda root: (root / "b.txt").write_text(""),
    "a file less": lambda root: (root / "run.sh").unlink(),
    "a program": lambda root: (root / "run.sh").chmod(0o755),
    "a link elsewhere": lambda root: (
        (root / "link").unlink(),
        (root / "link").symlink_to("x"),
    ),
    "a repository within": lambda root: (root / "src" / ".git").mkdir(),
    "a pipe": lambda root: os.mkfifo(root / "pipe"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_is_left_to_git(trees: Trees, change: str):
    CHANGES[change](trees.path)
    assert seen(trees) is None


def test_what_is_as_new_as_the_index_is_left_to_git(trees: Trees):
    index, file = trees.git_dir / "index", trees.path / "src" / "a.txt"
    os.utime(index, ns=(0, file.stat().st_mtime_ns))
    assert seen(trees) is None


def test_an_index_that_is_torn_is_left_to_git(trees: Trees):
    index = trees.git_dir / "index"
    os.truncate(index, index.stat().st_size - 1)
    assert seen(trees) is None


def test_where_nothing_was_ever_listed_nothing_may_lie(tmp_path: Path):
    assert unchanged(tmp_path / "index", tmp_path) == EMPTY
    (tmp_path / "a.txt").write_text("one")
    assert unchanged(tmp_path / "index", tmp_path) is None
