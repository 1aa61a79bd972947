"""A process that lost its hold does not touch what is another attempt's by now."""

from pathlib import Path

import pytest

from worker import fence
from worker.errors import Stopped
from worker.trees import Trees


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


def test_what_is_still_held_and_what_nobody_holds_may_be_written():
    with fence.fenced(lambda: 0.1):
        fence.check()
    fence.check()
