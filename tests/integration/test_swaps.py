"""Directories that become links while we are at work in a workspace lead nowhere outside of it.

An agent without a box, or a person's editor, may be at it at the same time. Beside each of our
hands a thread exchanges a directory with a link to one outside, as fast as it can.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.test_snapshots import meanwhile
from tests.machine import LACKS
from worker.failures.errors import WorkspaceFailed
from worker.workspace import beneath, confined, git, measure, reading, removal, survey
from worker.workspace.trees import Trees

AT_FDCWD, EXCHANGE = -100, 2
ROUNDS = 150
SECRET = "pl4nted" * 10
needs_landlock = pytest.mark.skipif(
    not confined.available(), reason=f"{LACKS}a kernel with Landlock, 6.2 or newer"
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What is another's: a file, a directory, and what git would wait for."""
    place = tmp_path / "outside"
    (place / "below").mkdir(parents=True)
    (place / "secret").write_text(SECRET)
    (place / "below" / "secret").write_text(SECRET)
    os.mkfifo(place / ".gitignore")
    os.mkfifo(place / "pipe")
    return place


@pytest.fixture
def trees(tmp_path: Path, outside: Path) -> Trees:
    """A workspace with a directory, a link beside it, and the same names as outside."""
    place = tmp_path / "place"
    (place / "d" / "below").mkdir(parents=True)
    (place / "d" / "secret").write_text("mine")
    (place / "d" / "below" / "secret").write_text("mine")
    (place / "way").symlink_to(outside)
    made = Trees(tmp_path / "place.git", place)
    made.create()
    return made


@contextmanager
def swapping(place: Path) -> Generator[None]:
    """Let `d` be the directory and the link by turns, while the block runs."""
    libc = ctypes.CDLL(None, use_errno=True)
    one, other = os.fsencode(place / "d"), os.fsencode(place / "way")
    with meanwhile(lambda: libc.renameat2(AT_FDCWD, one, AT_FDCWD, other, EXCHANGE)):
        yield


def state(place: Path) -> list[tuple[str, int, int]]:
    """Everything there, with its mode and size."""
    found = sorted(place.rglob("*"))
    return [(str(path), path.lstat().st_mode, path.lstat().st_size) for path in found]


def named(place: Path) -> list[str]:
    return [each.name for each in survey.look(place).left]


def shown(place: Path) -> list[str]:
    return [name for name in reading.files(place) if "pipe" in name]


def weighed(place: Path) -> list[str]:
    sizes = list(measure._sizes(place))  # pyright: ignore[reportPrivateUsage]
    return [str(size) for size in sizes if size == len(SECRET)]


def opened(place: Path) -> list[str]:
    removal.open_up(place)
    return []


@pytest.mark.parametrize("newer", [True, False], ids=["openat2", "step-by-step"])
@pytest.mark.parametrize("hand", [named, shown, weighed, opened])
def test_a_look_at_a_workspace_never_leaves_it(
    trees: Trees,
    outside: Path,
    hand: Callable[[Path], list[str]],
    newer: bool,
    monkeypatch: pytest.MonkeyPatch,
):
    if not newer:
        monkeypatch.setattr(beneath, "_knows_openat2", lambda: False)
    before = state(outside)
    with swapping(trees.path):
        found = {name for _ in range(ROUNDS) for name in hand(trees.path)}
    assert (found, state(outside)) == (set(), before)


@needs_landlock
def test_no_file_from_outside_comes_into_a_version(trees: Trees, outside: Path):
    before = state(outside)
    with swapping(trees.path):
        for _ in range(8):
            kept = trees.keep("one", parent=None)
            for name in trees.names(kept.commit):
                shown = trees._git("show", f"{kept.commit}:{name}")  # pyright: ignore[reportPrivateUsage]
                assert SECRET not in shown
    assert state(outside) == before


@needs_landlock
def test_git_reads_and_writes_through_no_link(trees: Trees, outside: Path):
    """The same without luck: paths that lead outside when git gets to them."""
    before, places = state(outside), (trees.path, trees.git_dir)
    commit = trees.keep("one", parent=None).commit
    for command in (
        ("hash-object", "-w", "--no-filters", "way/secret"),
        ("archive", "--output=way/new", commit),
        ("hash-object", "-w", "--no-filters", "/etc/hostname"),
    ):
        words = ("git", f"--git-dir={trees.git_dir}", *command)
        with pytest.raises(WorkspaceFailed, match="Permission denied"):
            git.told(*words, cwd=trees.path, only=places)
    told, _ = git.told("git", "hash-object", "d/secret", cwd=trees.path, only=places)
    assert len(told) == 41
    assert state(outside) == before


@needs_landlock
def test_what_lies_outside_stays_when_a_workspace_is_brought_back(trees: Trees, outside: Path):
    commit, before = trees.keep("one", parent=None).commit, state(outside)
    for _ in range(3):
        for name in ("d/secret", "d/below/secret"):
            (trees.path / name).write_text("changed")
        with swapping(trees.path), suppress(WorkspaceFailed):
            trees.restore(commit)  # where it fails it says so; the next attempt tries again
        trees.restore(commit)
    assert (trees.path / "d" / "secret").read_text() == "mine"
    assert state(outside) == before


def test_what_lies_outside_stays_when_a_workspace_is_removed(trees: Trees, outside: Path):
    before = state(outside)
    with swapping(trees.path):
        removal.discard(trees.path)
    removal.remove(trees.path)
    assert not trees.path.exists()
    assert state(outside) == before


def test_a_file_with_a_name_elsewhere_is_kept_and_that_is_not_written_over(
    trees: Trees, tmp_path: Path
):
    """A hard link is a file like any other: our git puts another in its place."""
    (other := tmp_path / "other").write_text("theirs")
    (trees.path / "-rf").hardlink_to(other)
    first = trees.keep("one", parent=None)
    assert "-rf" in trees.names(first.commit)
    (trees.path / "-rf").write_text("spoilt")
    trees.restore(first.commit)
    assert (trees.path / "-rf").read_text() == "theirs"
    assert other.read_text() == "spoilt"


def test_a_git_that_is_held_is_started_as_any_other(trees: Trees):
    """It has its answer, its end and its errors; the thread that started it is not bound."""
    with pytest.raises(subprocess.TimeoutExpired):
        confined.confined(
            lambda: subprocess.run(("sleep", "9"), timeout=0.1, check=False), write=[trees.path]
        )
    assert Path("/etc/passwd").read_text()
    assert list(Path("/").iterdir())
