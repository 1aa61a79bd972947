"""A repository or a directory that was there before Baton becomes a project's first version."""

import subprocess
from pathlib import Path

import pytest

from config.settings import settings
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.hosts import Hosts, files, writes
from tests.hosts import hosts as hosts
from tests.invariants import violations
from tests.running import AtWork

pytestmark = pytest.mark.agent("direct")

ME = ("-c", "user.name=x", "-c", "user.email=x@y", "-c", "protocol.file.allow=always")


@pytest.fixture
def at_home(at_work: AtWork) -> AtWork:
    at_work.agent = writes
    return at_work


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A repository with two commits, a change that is in none, and hooks that would tell."""
    place = tmp_path / "source"
    place.mkdir()
    git(place, "init", "-q")
    for text in ("one", "two"):
        (place / "a.txt").write_text(text)
        git(place, "add", "a.txt")
        git(place, *ME, "commit", "-qm", text)
    (place / "a.txt").write_text("three")
    (place / ".gitignore").write_text("ignored\n")
    (place / "ignored").write_text("x")
    marker = tmp_path / "ran"
    for hook in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction"):
        (place / ".git" / "hooks" / hook).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (place / ".git" / "hooks" / hook).chmod(0o755)
    git(place, "config", "core.fsmonitor", f"touch {marker}")
    git(place, "config", "uploadpack.packObjectsHook", f"touch {marker}")
    return place


def git(where: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=where, check=True)


def imported(bare: Baton, source: object) -> tuple[int, str]:
    told = bare("project", "shop", "--user", "ann", "--import", str(source))
    return told.code, told.out + told.err


def test_a_directory_is_taken_as_it_lies_and_the_first_build_works_on_it(
    at_home: AtWork, bare: Baton, source: Path, tmp_path: Path
):
    code, told = imported(bare, source)
    assert (code, "2 files are version" in told) == (0, True)
    assert files(at_home.place) == {"a.txt": "three", ".gitignore": "ignored\n"}
    assert not (at_home.place / ".git").exists()
    assert not (tmp_path / "ran").exists()
    (version,) = at_home.rows(
        "select version_id, status, tree = workspace_tree, ai_session_id from project_versions"
        " join projects using (project_id)"
    )
    assert version[1:] == ("imported", True, None)
    (event,) = at_home.events("project.imported")
    assert event["version"] == version[0]
    job = at_home.build("write b.txt: b")
    assert job.result
    assert job.result["files_created"] == ["b.txt"]
    assert at_home.moves() == [("build", None, None, at_home.head(), None)]
    assert set(files(at_home.place)) == {"a.txt", "b.txt", ".gitignore"}
    assert violations(at_home.conn) == []


@pytest.mark.parametrize("form", ["file://{}", "bare", "bundle"])
def test_of_a_repository_the_newest_commit_is_taken(
    at_home: AtWork, bare: Baton, source: Path, tmp_path: Path, form: str
):
    git(source, "config", "--unset", "core.fsmonitor")
    git(tmp_path, "clone", "-q", "--bare", str(source), "bare")
    git(source, "bundle", "create", "-q", str(tmp_path / "bundle"), "HEAD")
    (tmp_path / "ran").unlink(missing_ok=True)
    given = form.format(source) if "{" in form else tmp_path / form
    assert imported(bare, given)[0] == 0
    assert files(at_home.place) == {"a.txt": "two"}
    assert not (tmp_path / "ran").exists()
    left = [path.name for path in (settings().workspaces / ".trees").iterdir()]
    assert sorted(left) == ["shop.git", "shop.lock"]


def test_submodules_are_left_out_and_named(
    at_home: AtWork, bare: Baton, source: Path, tmp_path: Path
):
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "-q")
    git(outer, *ME, "submodule", "--quiet", "add", str(source), "inner")
    git(outer, *ME, "commit", "-qm", "x")
    code, told = imported(bare, f"file://{outer}")
    assert (code, "Left out: 1, inner (submodule)." in told) == (0, True)
    assert set(files(at_home.place)) == {".gitmodules"}


def test_a_workspace_that_is_filled_already_is_imported_in_place(at_home: AtWork, bare: Baton):
    at_home.place.mkdir(parents=True)
    (at_home.place / "a.txt").write_text("here")
    assert imported(bare, at_home.place)[0] == 0
    assert files(at_home.place) == {"a.txt": "here"}
    at_home.build("write b.txt: b")
    assert files(at_home.place) == {"a.txt": "here", "b.txt": "b"}
    assert at_home.events("workspace.kept_aside") == []


def test_other_hosts_have_it_too(hosts: Hosts, bare: Baton, source: Path):
    assert imported(bare, source)[0] == 0
    place = hosts.on("two")
    hosts.at_work.build("write b.txt: b")
    assert set(files(place)) == {"a.txt", "b.txt", ".gitignore"}


def test_what_cannot_be_imported_is_refused_with_a_sentence(
    at_home: AtWork, bare: Baton, source: Path, tmp_path: Path
):
    (tmp_path / "empty").mkdir()
    git(tmp_path, "init", "-q", "--bare", "nothing.git")
    for given, why in (
        (tmp_path / "missing", "There is no"),
        ("file:///nowhere/x.git", "Git cannot fetch from there"),
        ("ext::sh -c touch% ran", "Git cannot fetch from there"),
        ("--upload-pack=touch", "There is no"),
        (tmp_path / "nothing.git", "Git cannot fetch from there"),
        (settings().workspaces.parent.parent, "holds all workspaces"),
    ):
        code, told = imported(bare, given)
        assert (code, why in told, told.count("\n")) == (1, True, 1), told
    assert at_home.rows("select * from projects") == []
    assert bare("project", "shop", "--import", str(source)).code == 2
    assert bare("project", "shop", "--user", "ann").code == 2
    refused = bare("project", "a/b", "--user", "ann", "--import", str(source))
    assert (refused.code, "project id must be" in refused.err) == (1, True)


def test_only_a_project_without_a_version_is_imported_into(
    at_home: AtWork, bare: Baton, source: Path, tmp_path: Path
):
    at_home.place.mkdir(parents=True)
    (at_home.place / "mine.txt").write_text("mine")
    assert "is not empty" in imported(bare, source)[1]
    (at_home.place / "mine.txt").unlink()
    at_home.build("write a.txt: a")
    assert "has versions already" in imported(bare, source)[1]
    told = bare("project", "shop", "--user", "bob", "--import", str(source))
    assert "cannot be had here: choose another id" in told.err
    assert files(at_home.place) == {"a.txt": "a"}
