"""A directory is kept whatever lies in it, and whatever becomes of it meanwhile."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration.test_workspace_places import another_holds
from tests.machine import without_override
from worker.failures.errors import WorkspaceBusy, WorkspaceFailed
from worker.text.file_names import LONGEST, LeftOut
from worker.workspace import lockfile, removal, trees
from worker.workspace.trees import Trees

MIB = 2**20


@pytest.fixture
def kept(tmp_path: Path) -> Trees:
    place = tmp_path / "place"
    place.mkdir()
    made = Trees(tmp_path / "place.git", place)
    made.create()
    return made


def elsewhere(kept: Trees, commit: str) -> Path:
    """Another directory, with the files of the commit."""
    place = kept.path.with_name("elsewhere")
    place.mkdir()
    other = Trees(kept.path.with_name("elsewhere.git"), place)
    other.create()
    other.borrow(kept.git_dir)
    other.restore(commit)
    return place


@contextmanager
def meanwhile(does: Callable[[], None]) -> Generator[None]:
    """Do it over and over, beside the block."""
    over, began = threading.Event(), threading.Event()

    def run() -> None:
        while not over.is_set():
            does()
            began.set()

    thread = threading.Thread(target=run)
    thread.start()
    began.wait(10)
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_file_that_changes_while_it_is_read_is_kept_or_named(kept: Trees):
    file = kept.path / "log"
    file.write_bytes(os.urandom(MIB))
    (kept.path / "quiet").write_text("1")

    def change() -> None:
        with file.open("r+b") as opened:
            opened.write(os.urandom(MIB))

    with meanwhile(change):
        for number in range(3):
            found = kept.keep(f"{number}", parent=None)
            assert "quiet" in kept.names(found.commit)
            named = {each.name for each in found.left_out}
            assert "log" in named or "log" in kept.names(found.commit)


def test_files_that_come_and_go_and_shrink_meanwhile_stop_nobody(kept: Trees):
    (kept.path / "quiet").write_text("1")

    def change() -> None:
        for number in range(20):
            folder = kept.path / f"d{number}"
            folder.mkdir(exist_ok=True)
            (folder / "a").write_bytes(bytes(MIB))
            os.truncate(folder / "a", 10)
            (folder / "a").unlink()
            folder.rmdir()

    with meanwhile(change):
        for number in range(6):
            found = kept.keep(f"{number}", parent=None)
            assert "quiet" in kept.names(found.commit)


STRUCK = """#!/bin/sh
case "$*" in *" add "*) ;; *) exec GIT "$@";; esac
places=$(tr '\\0' '\\n')
case "$places" in
    *bad*) kill -BUS $$;;
    .*|*mixed) echo "fatal: confused by unstable object source data" >&2; exit 128;;
esac
printf '%s' "$places" | tr '\\n' '\\0' | GIT "$@"
"""


def test_where_git_dies_of_a_file_all_others_are_kept(
    kept: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("good", "mixed/good", "mixed/bad", "bad"):
        (kept.path / name).parent.mkdir(exist_ok=True)
        (kept.path / name).write_text("1")
    struck_git(tmp_path, monkeypatch, STRUCK)
    found = kept.keep("one", parent=None)
    assert kept.names(found.commit) == ["good", "mixed/good"]
    assert found.left_out == [LeftOut("bad", "refused"), LeftOut("mixed/bad", "refused")]


def struck_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    real = subprocess.run(["which", "git"], capture_output=True, text=True, check=True)
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(script.replace("GIT", real.stdout.strip()))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_a_git_that_adds_nothing_at_all_is_told_of(
    kept: Trees, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (kept.path / "a").write_text("1")
    fails = '#!/bin/sh\ncase "$*" in *" add "*) echo "fatal: x" >&2; exit 128;; esac\nexec GIT "$@"\n'
    struck_git(tmp_path, monkeypatch, fails)
    with pytest.raises(WorkspaceFailed):
        kept.keep("one", parent=None)


def test_a_repository_that_takes_no_objects_does_not_pass_for_files_left_out(kept: Trees):
    (kept.path / "a").write_text("1")
    removal.remove(kept.git_dir / "objects")
    (kept.git_dir / "objects").write_text("no directory")
    with pytest.raises(WorkspaceFailed):
        kept.keep("one", parent=None)


@contextmanager
def nested(place: Path, name: str, times: int) -> Generator[None]:
    """Directories in directories, further than a path can name, and a file in the last."""
    here = os.open(place, os.O_DIRECTORY)
    try:
        for _number in range(times):
            os.mkdir(name, dir_fd=here)
            below = os.open(name, os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("f", os.O_CREAT, dir_fd=here))
        yield
    finally:
        os.close(here)
        subprocess.run(["rm", "-rf", place], check=True)  # pytest's own goes less deep


def test_what_no_path_can_name_is_left_out(kept: Trees):
    (kept.path / "a").write_text("1")
    with nested(kept.path, "d" * 200, 30):
        found = kept.keep("one", parent=None)
        assert kept.names(found.commit) == ["a"]
        assert [each.why for each in found.left_out] == ["path"]
        assert LONGEST < len(found.left_out[0].name) < LONGEST + 256
        kept.restore(found.commit, spare=found.left_out)


def test_directories_nested_deeper_than_a_stack_are_removed(tmp_path: Path):
    place = tmp_path / "place"
    place.mkdir()
    with nested(place, "d", sys.getrecursionlimit() + 50):
        assert removal.remove(place) == 1
        assert not place.exists()


CLOSED = """
import sys
from pathlib import Path
from worker.workspace import reading
from worker.workspace.trees import Trees
place = Path(sys.argv[1])
trees = Trees(place.with_suffix(".git"), place)
trees.create()
for name in ("kept/a", "listed/a", "shut/a", "secret", "DOCUMENTATION.md"):
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_text("1")
first = trees.keep("first", parent=None)
for name in ("kept/a", "listed/a", "shut/a", "secret", "DOCUMENTATION.md"):
    (place / name).write_text("2")
(place / "new").write_text("3")
for name in ("secret", "new", "DOCUMENTATION.md"):
    (place / name).chmod(0)
(place / "listed").chmod(0o444)
(place / "shut").chmod(0)
place.chmod(0)
then = trees.keep("then", parent=first.commit)
left = [(each.name, each.why) for each in then.left_out]
assert left == [(name, "unreadable") for name in
    ("DOCUMENTATION.md", "listed", "new", "secret", "shut")], left
changed = trees.patch(first.commit, then.commit, "--name-only").split()
assert changed == ["kept/a"], changed
assert trees.names(then.commit) == trees.names(first.commit)
assert reading.text(place / "DOCUMENTATION.md") == ""
assert reading.files(place)
trees.restore(first.commit, spare=then.left_out)
assert (place / "kept" / "a").read_text() == "1"
assert (place / "new").exists()
"""


def test_what_a_worker_may_not_read_is_named_and_stays_as_it_was_last_kept(tmp_path: Path):
    place = tmp_path / "place"
    place.mkdir()
    ran = subprocess.run(
        [*without_override(), sys.executable, "-c", CLOSED, str(place)],
        env={**os.environ, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_nobody_goes_on_beside_another_however_long_that_takes(
    kept: Trees, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(trees, "PATIENCE", 0.2)
    with another_holds(kept.git_dir.with_suffix(".lock")) as pid:
        with pytest.raises(WorkspaceBusy, match=f"process {pid} of host"), kept.held():
            pytest.fail("two at once")
        with kept.held_now() as alone:
            assert not alone
    with kept.held(), kept.held_now() as alone:
        assert not alone


def test_a_lock_whose_file_was_removed_is_no_lock(tmp_path: Path):
    """Who has opened it just before is not alone: who comes now has a file of its own."""
    path = tmp_path / "lock"
    late = os.open(path, os.O_RDWR | os.O_CREAT)
    path.unlink()
    with lockfile.taken(path, within=0) as alone:
        assert alone
        assert not lockfile._locked(late, path)  # pyright: ignore[reportPrivateUsage]
    os.close(late)
