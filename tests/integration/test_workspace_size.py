"""What a workspace may hold: a turn that leaves more fails, and nothing of it is in a version."""

import os
import time
from pathlib import Path

import pytest

from tests.running import AtWork, P
from worker.workspace import measure, workspace

FILES = "The workspace holds more than 50 files and directories"
MANY = "mkdir many && cd many && seq 100 | xargs touch"
LARGE = "truncate -s 100G sparse"


@pytest.fixture
def small(at_work: AtWork) -> AtWork:
    at_work.configure(BATON_WORKSPACE_FILES="50", BATON_WORKSPACE_BYTES="1000000")
    assert at_work.build("write a.txt: one").state == "done"
    return at_work


def objects(place: Path) -> int:
    """Bytes of the project's repository."""
    git = workspace.repository(P)
    return sum(path.stat().st_size for path in git.rglob("*") if path.is_file())


@pytest.mark.agent("direct")
@pytest.mark.parametrize(
    ("does", "setting"),
    [
        (MANY, "BATON_WORKSPACE_FILES"),
        ("head -c 2000000 /dev/urandom > large", "BATON_WORKSPACE_BYTES"),
        (f"echo many > .gitignore; {MANY}", "BATON_WORKSPACE_FILES"),
    ],
)
def test_a_turn_that_leaves_too_much_fails_and_the_next_begins_without_it(
    small: AtWork, does: str, setting: str
):
    head, before = small.head(), objects(small.place)
    job = small.build(f"run: {does}\nedit a.txt: one => two")
    assert (job.state, job.error_class, job.attempts) == ("failed", "workspace_too_large", 1)
    assert job.error
    assert f"or raise {setting}" in job.error
    assert (small.head(), objects(small.place) - before < 100_000) == (head, True)
    assert small.build("write b.txt: more").state == "done"
    assert sorted(path.name for path in small.place.iterdir()) == ["a.txt", "b.txt"]
    assert (small.place / "a.txt").read_text() == "one"


def test_a_file_without_content_costs_no_snapshot(small: AtWork):
    began = time.process_time()
    job = small.build(f"run: ulimit -f; {LARGE}; for i in 1 2 3; do truncate -s 9G s$i; done")
    assert (job.state, job.error_class) == ("failed", "workspace_too_large")
    assert time.process_time() - began < 10
    assert small.build("write b.txt: more").state == "done"


@pytest.mark.agent("direct")
def test_what_git_ignores_stays_unless_it_is_too_much_by_itself(small: AtWork):
    assert small.build("run: echo .env > .gitignore; echo secret > .env").state == "done"
    assert small.build(f"run: {MANY}").error_class == "workspace_too_large"
    assert small.build("write b.txt: more").state == "done"
    assert (small.place / ".env").read_text() == "secret\n"


@pytest.mark.agent("direct")
def test_what_people_put_there_is_not_taken_away(small: AtWork):
    for number in range(60):
        (small.place / f"{number}.txt").write_text("theirs")
    job = small.build("write b.txt: more")
    assert (job.state, job.error_class) == ("failed", "workspace_too_large")
    assert job.error
    assert job.error.startswith(FILES)
    assert len(list(small.place.iterdir())) == 61
    small.configure(BATON_WORKSPACE_FILES="0")
    assert small.build("write b.txt: more").state == "done"


def test_the_look_ends_where_it_is_too_much(small: AtWork, tmp_path: Path):
    for number in range(30):
        (folder := tmp_path / "much" / str(number)).mkdir(parents=True)
        for each in range(100):
            (folder / str(each)).touch()
    looked: list[str] = []
    for _, _, names in os.walk(tmp_path / "much"):
        looked += names
    assert len(looked) == 3000
    told = measure.excess(tmp_path / "much")
    assert told
    assert told.startswith(FILES)
