"""A project is deleted on one host: what another host has left of it is nobody else's, and goes."""

from pathlib import Path

import pytest

from config.settings import settings
from tests.hosts import Hosts, aside, files, git
from tests.hosts import hosts as hosts
from tests.running import AtWork, P
from worker.cli import main
from worker.client import Build
from worker.workspace import leftovers, refs, repositories, workspace
from worker.workspace.trees import Trees

pytestmark = pytest.mark.agent("direct")

ANN, BOB = "ann", "bob"


def build(at_work: AtWork, user: str, prompt: str, branch_from: str | None = None) -> str:
    return at_work.one(
        Build(project=P, user=user, prompt=prompt, branch_from=branch_from)
    ).state


@pytest.fixture
def two(hosts: Hosts) -> Path:
    """The workspace of ann's project on host two, deleted on host one; host two is at work."""
    assert build(hosts.at_work, ANN, "write secret.txt: of ann") == "done"
    two = hosts.on("two")
    head = str(hosts.at_work.head())
    assert build(hosts.at_work, ANN, "write more.txt: of ann", branch_from=head) == "done"
    assert hosts.at_work.chat("what?").state == "done"
    hosts.on("one")
    assert main(["delete", "project", P, "--yes"]) == 0
    hosts.on("two")
    assert files(two) == {"secret.txt": "of ann"}
    assert list(workspace.branches(P).glob("*.git"))
    return two


def everything() -> str:
    """All that git of this host leads to, and the names of all files outside of it."""
    repository = workspace.repository(P)
    commits = git(repository, "rev-list", "--all")
    names = [name for each in commits for name in git(repository, "ls-tree", "-r", each)]
    return " ".join(names + [str(path) for path in settings().workspaces.rglob("*")])


def test_the_next_owner_of_the_id_gets_none_of_its_files(hosts: Hosts, two: Path):
    assert build(hosts.at_work, BOB, "write b.txt: of bob") == "done"
    assert files(two) == {"b.txt": "of bob"}
    assert ".txt" in everything()
    for theirs in ("secret", "more"):
        assert theirs not in everything()
    remote = hosts.remote / f"{P}.git"
    (sent,) = hosts.sent()
    assert git(remote, "rev-list", "--all") == [sent]
    assert aside(hosts.at_work) == []


def test_nor_when_the_next_owner_began_elsewhere(hosts: Hosts, two: Path):
    hosts.on("one")
    assert build(hosts.at_work, BOB, "write b.txt: of bob") == "done"
    hosts.on("two")
    assert hosts.at_work.one(Build(project=P, user=BOB, prompt="what?")).state == "done"
    assert files(two) == {"b.txt": "of bob"}
    assert "secret" not in everything()
    assert aside(hosts.at_work) == []


def test_nor_when_the_next_owner_is_first_here_on_a_branch(hosts: Hosts, two: Path):
    hosts.on("one")
    assert build(hosts.at_work, BOB, "write b.txt: of bob") == "done"
    head = str(hosts.at_work.head())
    hosts.on("two")
    assert build(hosts.at_work, BOB, "write c.txt: c", branch_from=head) == "done"
    assert files(two) == {}
    assert "secret" not in everything()
    assert hosts.at_work.one(Build(project=P, user=BOB, prompt="what?")).state == "done"
    assert files(two) == {"b.txt": "of bob"}
    (lane,) = (settings().workspaces / ".branches" / P).iterdir()
    assert files(lane) == {"b.txt": "of bob", "c.txt": "c"}


def test_nor_what_a_turn_of_it_had_only_begun(hosts: Hosts):
    assert build(hosts.at_work, ANN, "write a.txt: a") == "done"
    place = hosts.on("two")
    place.mkdir(parents=True)
    (place / "secret.txt").write_text("of ann")
    trees = Trees(workspace.repository(P), place)
    trees.create()
    trees.point(f"{refs.BEGUN}/x", trees.snapshot("as found", parent=None))
    hosts.on("one")
    assert main(["delete", "user", ANN, "--yes"]) == 0, "projects of a deleted user are deleted"
    hosts.on("two")
    assert build(hosts.at_work, BOB, "write b.txt: of bob") == "done"
    assert files(place) == {"b.txt": "of bob"}
    assert "secret" not in everything()


def test_nor_by_an_import(hosts: Hosts, two: Path, tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "b.txt").write_text("of bob")
    asked = ["project", P, "--import", str(source), "--user", BOB]
    assert main(asked) == 0
    assert files(two) == {"b.txt": "of bob"}
    assert "secret" not in everything()


def test_without_a_receipt_what_lies_there_stays(hosts: Hosts, two: Path):
    hosts.at_work.conn.execute("delete from deletions")
    assert build(hosts.at_work, BOB, "write b.txt: of bob") == "done"
    assert files(two) == {"secret.txt": "of ann", "b.txt": "of bob"}


def test_what_the_next_owner_made_stays_whatever_becomes_of_the_head(hosts: Hosts, two: Path):
    """As a worker leaves it that died before its first turn was committed."""
    assert build(hosts.at_work, BOB, "write b.txt: of bob") == "done"
    trees = Trees(workspace.repository(P), two)
    trees.forget(refs.HEAD)
    leftovers.clear(hosts.at_work.conn, P)
    assert repositories.run_once() == 1
    assert files(two) == {"b.txt": "of bob"}
    assert trees.exist()


def test_a_host_removes_by_itself_what_it_has_of_a_deleted_project(hosts: Hosts, two: Path):
    at_work, root = hosts.at_work, settings().workspaces
    at_work.one(Build(project="other", user=ANN, prompt="write a.txt: a"))
    unknown = Trees(workspace.repository("unknown"), root)
    unknown.create()
    repositories.run_once()
    assert not two.exists()
    left = {path.name for path in (root / ".trees").iterdir()} - {"unknown.lock"}
    assert left == {"other.git", "other.lock", "unknown.git", ".upkeep.lock"}
    assert list((root / ".branches").iterdir()) == []
    assert files(root / "other") == {"a.txt": "a"}


def test_but_not_a_directory_in_which_another_project_works(hosts: Hosts, two: Path):
    other = Build(project="other", user=BOB, prompt="write b.txt: b", workspace=str(two))
    assert hosts.at_work.one(other).state == "done"
    repositories.run_once()
    assert (two / "b.txt").read_text() == "b"
    assert not workspace.repository(P).exists()
