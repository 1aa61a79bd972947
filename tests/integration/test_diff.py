"""What a version changed comes out as a patch."""

import io
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commandline import BATON, Baton
from tests.commandline import bare as bare
from tests.commandline import checkout as checkout
from tests.commandline import environment as environment
from tests.gateways import Gateway, gateway
from tests.hosts import Hosts
from tests.hosts import hosts as hosts
from worker.failures.errors import GitEnded
from worker.workspace import diff, git

pytestmark = pytest.mark.agent("direct")


@pytest.fixture
def two(hosts: Hosts) -> Hosts:
    """A project of two versions, `v1` and `v2`, on host one."""
    at_work = hosts.at_work
    at_work.build("write a.txt: one\nwrite gone.txt: x", version="v1")
    (at_work.place / "data").write_bytes(b"\x00\xff" * 100)
    (at_work.place / "größe 日本.txt").write_bytes(b"\xfc\n")
    at_work.build("write a.txt: two\nwrite b.txt: two\nremove gone.txt", version="v2")
    return hosts


def test_the_patch_of_the_newest_version_applies_to_the_one_before(
    two: Hosts, environment: dict[str, str], tmp_path: Path
):
    done = subprocess.run(
        [BATON, "diff", "shop"],
        env={**environment, **os.environ},
        capture_output=True,
        check=True,
    )
    before = tmp_path / "before"
    before.mkdir()
    (before / "a.txt").write_text("one")
    (before / "gone.txt").write_text("x")
    subprocess.run(["git", "apply", "-"], cwd=before, input=done.stdout, check=True)
    place = two.at_work.place
    assert {p.name: p.read_bytes() for p in before.iterdir()} == {
        p.name: p.read_bytes() for p in place.iterdir()
    }


def test_the_first_version_is_against_nothing_and_any_against_any(two: Hosts, bare: Baton):
    first = bare("diff", "shop", "v1", "--json").document
    assert (first["version"], first["against"]) == ("v1", None)
    assert [(f["path"], f["status"]) for f in first["files"]] == [
        ("a.txt", "A"),
        ("gone.txt", "A"),
    ]
    back = bare("diff", "shop", "v1", "--against", "v2", "--json").document
    assert ("gone.txt", "A") in [(f["path"], f["status"]) for f in back["files"]]


def test_a_summary_counts_files_and_lines(two: Hosts, bare: Baton):
    found = bare("diff", "shop", "--json").document
    assert {f["path"]: (f["status"], f["added"], f["removed"]) for f in found["files"]} == {
        "a.txt": ("M", 1, 1),
        "b.txt": ("A", 1, 0),
        "data": ("A", None, None),
        "gone.txt": ("D", 0, 1),
        "größe 日本.txt": ("A", 1, 0),
    }
    assert (found["added"], found["removed"]) == (3, 2)
    assert (
        "5 files changed, 3 insertions(+), 2 deletions(-)" in bare("diff", "shop", "--stat").out
    )


def test_of_very_many_files_the_first_are_named_and_all_are_counted(
    two: Hosts, bare: Baton, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(diff, "MOST", 2)
    found = bare("diff", "shop", "--json").document
    assert [f["path"] for f in found["files"]] == ["a.txt", "b.txt"]
    assert (found["files_count"], found["added"], found["removed"]) == (5, 3, 2)
    told = bare("diff", "shop", "--stat").out
    assert ("b.txt" in told, "gone.txt" in told) == (True, False)
    assert "5 files changed, 3 insertions(+), 2 deletions(-)" in told


def test_any_host_gives_it_that_can_fetch_it(two: Hosts, bare: Baton):
    place = two.on("another")
    assert len(bare("diff", "shop", "--json").document["files"]) == 5
    assert not place.exists()
    two.at_work.chat("what?")
    assert (place / "a.txt").read_text() == "two"


def test_what_cannot_be_shown_is_told_in_a_sentence(two: Hosts, bare: Baton):
    at_work = two.at_work
    for arguments, why in (
        (("nobody",), "is unknown"),
        (("shop", "v3"), "has no version v3: its newest are v2, v1"),
        (("shop", "v2", "--against", "v0"), "has no version v0"),
    ):
        told = bare("diff", *arguments)
        assert (told.code, why in told.err, told.out) == (1, True, "")
    two.on("another")
    two.away()
    assert "cannot be fetched from BATON_WORKSPACE_REMOTE" in bare("diff", "shop").err
    at_work.configure(BATON_WORKSPACE_REMOTE=None)
    two.on("a third")
    assert "are not on this host" in bare("diff", "shop").err
    at_work.conn.execute("update project_versions set tree = null")
    assert "No files were kept of version v1" in bare("diff", "shop").err
    at_work.conn.execute("delete from project_versions")
    assert "has no version yet" in bare("diff", "shop").err


MB = 2**20
ENDLESS = ("sh", "-c", "printf x; exec sleep 600")


def most_held(at: Gateway) -> int:
    """The most memory (bytes) that the gateway has had."""
    told = Path(f"/proc/{at.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", told)[0]) * 1024


def test_a_gateway_refuses_a_patch_that_it_would_not_hold(two: Hosts, dsn: str, tmp_path: Path):
    (two.at_work.place / "large").write_bytes(os.urandom(64 * MB))
    two.at_work.build("write c.txt: three", version="v3")
    of = "/v1/projects/shop/versions"
    with gateway(dsn, "", tmp_path / "log") as at, at.http as http:
        small = http.get(f"{of}/v2/diff")
        before = most_held(at)
        large = http.get(f"{of}/v3/diff")
        grown = most_held(at) - before
    assert (small.status_code, b"+two" in small.content) == (200, True)
    assert (large.status_code, large.json()["code"]) == (413, "patch_too_long")
    assert grown < 56 * MB, grown


def test_a_git_that_goes_silent_is_ended(tmp_path: Path):
    into, before = io.BytesIO(), psutil.Process().children()
    with pytest.raises(GitEnded, match=r"in 0\.5 s"):
        git.pour(*ENDLESS, cwd=tmp_path, into=into, within=0.5)
    assert into.getvalue() == b"x"
    assert psutil.Process().children() == before


def test_a_git_whose_answer_nobody_takes_is_ended(tmp_path: Path):
    class Full(io.BytesIO):
        def write(self, _: Any, /) -> int:
            raise BrokenPipeError

    before = psutil.Process().children()
    with pytest.raises(BrokenPipeError):
        git.pour(*ENDLESS, cwd=tmp_path, into=Full())
    assert psutil.Process().children() == before
