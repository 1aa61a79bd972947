"""A process that lost its hold does not touch what is another attempt's by now."""

from pathlib import Path
from uuid import uuid4

import pytest

from worker.failures.errors import Stopped
from worker.process import fence
from worker.workspace import git
from worker.workspace.trees import Trees


def test_a_workspace_is_left_alone_once_the_hold_is_over(tmp_path: Path):
    place = tmp_path / "p"
    place.mkdir()
    trees = Trees(tmp_path / "p.git", place)
    trees.create()
    before = trees.snapshot("as found", parent=None)
    (place / "theirs.txt").write_text("of the attempt that took over")
    with fence.fenced(lambda: 0.0):
        for touch in (
            lambda: trees.restore(before),
            lambda: trees.point("refs/baton/head", before),
            lambda: trees.snapshot("late", parent=before),
        ):
            with pytest.raises(Stopped, match="lease_lost"):
                touch()
    assert (place / "theirs.txt").exists()
    assert trees.ref("refs/baton/head") is None


def test_git_carries_the_attempt_that_it_works_for(tmp_path: Path):
    asked = ("sh", "-c", "echo $BATON_ATTEMPT")
    attempt = uuid4()
    with fence.fenced(lambda: 30.0, attempt=attempt):
        assert git.run(*asked, cwd=tmp_path) == f"{attempt}\n"
    assert git.run(*asked, cwd=tmp_path) == "\n"


def test_git_that_was_killed_for_the_next_attempt_has_lost_the_lease(tmp_path: Path):
    left = iter([1.0, 0.0])
    with fence.fenced(lambda: next(left)), pytest.raises(Stopped, match="lease_lost"):
        git.run("sh", "-c", "kill -9 $$", cwd=tmp_path)


def test_what_is_still_held_and_what_nobody_holds_may_be_written():
    with fence.fenced(lambda: 0.1):
        fence.check()
    fence.check()
