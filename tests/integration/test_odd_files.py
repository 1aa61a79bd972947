"""Whatever an agent leaves in its workspace, the turn is kept and the project goes on.

What no version can hold is left out and named (`workspace.left_out`), never more than a part of
the names, and with how many there are.
"""

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from config.settings import settings
from dev.agents.scripted import scripted
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.hosts import Hosts, git, kept
from tests.hosts import hosts as hosts
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.agent import Agent, Request, Turn
from worker.broker.publish import stream
from worker.client import Build
from worker.failures.errors import AgentFailed

pytestmark = pytest.mark.agent("direct")

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main")


def does(deed: Callable[[Path], object]) -> Agent:
    """An agent that does this in its workspace."""

    def agent(request: Request, **more: Any) -> Turn:
        deed(request.cwd)
        return scripted()(request, **more)

    return agent


def scaffold(place: Path, name: str = "app") -> Path:
    """A repository of its own in there, as `npm create` and `cargo new` make one."""
    app = place / name
    app.mkdir(parents=True)
    subprocess.run([*GIT, "init", "-q", app], check=True)
    (app / ".gitignore").write_text("node_modules\n.env.local\n")
    (app / ".env.local").write_text("SECRET=hush")
    (app / "main.js").write_text("run()")
    for number in range(20):
        file = app / "node_modules" / f"p{number}" / "index.js"
        file.parent.mkdir(parents=True)
        file.write_text("x")
    return app


def bind(path: Path) -> None:
    here = os.open(path.parent, os.O_DIRECTORY)
    with socket.socket(socket.AF_UNIX) as listener:  # by a short name, however long the path
        listener.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


def build(at_work: AtWork, deed: Callable[[Path], object]) -> list[str]:
    """A build that does this; the files of its version."""
    job = at_work.build("do it", agent=does(deed))
    assert (job.state, job.error) == ("done", None)
    return sorted(kept(tree_of(at_work)))


def tree_of(at_work: AtWork) -> str:
    return at_work.value("select workspace_tree from projects")


def nothing(_: Path) -> None:
    pass


def left_out(at_work: AtWork) -> dict[str, str]:
    """What the newest such event names, and why."""
    told = at_work.events("workspace.left_out")[-1]
    assert told["count"] >= len(told["names"])
    return {each["name"]: each["why"] for each in told["names"]}


def test_what_no_version_can_hold_is_named_and_ends_no_project(at_work: AtWork):
    def deed(place: Path) -> None:
        app = scaffold(place)
        bind(app / "server.sock")
        os.mkfifo(app / "pipe")
        os.mkfifo(place / "pipe")
        for name in (".GIT", "git~1", ".g\u200cit"):
            (place / name).mkdir()
            (place / name / "config").write_text("x")
        (place / "a.txt").write_text("a")

    files = ["a.txt", "app/.gitignore", "app/main.js"]
    assert build(at_work, deed) == files
    named = {
        "app/server.sock": "socket",
        "app/pipe": "pipe",
        "pipe": "pipe",
        ".GIT": "name",
        "git~1": "name",
        ".g\u200cit": "name",
    }
    assert left_out(at_work) == named
    assert build(at_work, nothing) == files
    assert left_out(at_work) == named
    assert violations(at_work.conn) == []


def test_the_event_of_what_is_left_out_comes_with_the_commit(at_work: AtWork):
    job = at_work.build("do it", agent=does(lambda place: os.mkfifo(place / "pipe")))
    told = at_work.rows("select type, body from events where job_id = %s order by seq", job.id)
    types = [each for each, _ in told]
    assert types[-4:] == ["session.moved", "chat.said", "workspace.left_out", "job.done"]
    assert told[-2][1] == {
        "kind": "build",
        "chain": str(job.chain_id),
        "version": str(job.chain_id),
        "count": 1,
        "names": [{"name": "pipe", "why": "pipe"}],
    }


def test_what_a_nested_repository_ignores_is_not_kept(at_work: AtWork):
    files = ["app/.gitignore", "app/main.js", "app/tools/own/a"]

    def deed(place: Path) -> None:
        app = scaffold(place)
        inner = scaffold(app, "tools/own")  # a repository in the repository, with commits
        (inner / "a").write_text("1")
        (inner / ".gitignore").write_text("*\n!a\n")
        subprocess.run([*GIT, "-C", inner, "add", "a"], check=True)
        subprocess.run([*GIT, "-C", inner, "commit", "-qm", "x"], check=True)

    assert build(at_work, deed) == files
    assert build(at_work, nothing) == files
    assert at_work.events("workspace.left_out") == []
    assert (at_work.place / "app" / ".env.local").exists()


def test_nor_is_it_sent_to_a_remote(hosts: Hosts):
    job = hosts.at_work.build("do it", agent=does(scaffold))
    assert (job.state, job.error) == ("done", None)
    sent = git(
        hosts.remote / f"{P}.git", "ls-tree", "-r", "--name-only", tree_of(hosts.at_work)
    )
    assert sorted(sent) == ["app/.gitignore", "app/main.js"]
    place = hosts.on("two")
    assert build(hosts.at_work, nothing) == ["app/.gitignore", "app/main.js"]
    assert not (place / "app" / ".env.local").exists()


def test_what_was_kept_of_it_before_its_gitignore_was_there_is_kept_no_more(at_work: AtWork):
    def deed(place: Path) -> None:
        scaffold(place)
        (place / "app" / ".gitignore").rename(place / "rules")

    assert "app/.env.local" in build(at_work, deed)

    def then(place: Path) -> None:
        (place / "rules").rename(place / "app" / ".gitignore")

    assert build(at_work, then) == ["app/.gitignore", "app/main.js"]


def test_a_directory_that_becomes_a_link_and_the_reverse_are_kept(at_work: AtWork):
    def first(place: Path) -> None:
        app = scaffold(place)
        (app / "lib").mkdir()
        (app / "lib" / "a").write_text("1")
        (app / "loop").symlink_to("loop")
        (place / "link").symlink_to("app")

    def then(place: Path) -> None:
        (place / "app" / "lib" / "a").unlink()
        (place / "app" / "lib").rmdir()
        (place / "app" / "lib").symlink_to("/nowhere")
        (place / "link").unlink()
        scaffold(place, "link")

    own = ["app/.gitignore", "app/main.js"]
    assert build(at_work, first) == sorted([*own, "app/lib/a", "app/loop", "link"])
    files = sorted([*own, "app/lib", "app/loop", "link/.gitignore", "link/main.js"])
    assert build(at_work, then) == files


def test_a_pipe_in_the_place_of_gits_rules_stops_nobody(at_work: AtWork):
    def deed(place: Path) -> None:
        os.mkfifo(place / ".gitignore")
        (place / "d").mkdir()
        os.mkfifo(place / "d" / ".gitattributes")
        (place / "d" / "a").write_text("1")

    assert build(at_work, deed) == ["d/a"]
    assert left_out(at_work) == {
        ".gitignore.left-out": "pipe",
        "d/.gitattributes.left-out": "pipe",
    }
    assert build(at_work, nothing) == ["d/a"]


def test_files_made_are_named_in_part_and_counted(at_work: AtWork, redis_url: str):
    def deed(place: Path) -> None:
        for number in range(3000):
            (place / f"a-file-with-a-long-name-{number:05}").touch()

    job = at_work.build("do it", agent=does(deed))
    assert job.result
    assert job.result["files_created"][0] == "a-file-with-a-long-name-00000"
    assert len(job.result["files_created"]) == 200
    assert job.result["files_created_count"] == 3000
    told = at_work.rows("select max(length(body::text)) from events")[0][0]
    with redis.Redis.from_url(f"{redis_url.rpartition('/')[0]}/1") as client:
        checkpoint: Any = client.get(f"claude:session:{job.chain_id}")
    with redis.Redis.from_url(f"{redis_url.rpartition('/')[0]}/2") as client:
        streamed: Any = client.xrange(stream(P))
    assert len(json.loads(checkpoint)["filesCreated"]) == 200
    largest = max(len(str(entry)) for entry in streamed)
    noted = at_work.value(
        "select max(length(digest_files::text)) from project_ai_session_metrics"
    )
    assert max(told, len(checkpoint), largest, noted) < 25_000


def test_what_is_left_out_is_named_in_part_and_counted(at_work: AtWork):
    def deed(place: Path) -> None:
        for number in range(300):
            os.mkfifo(place / f"pipe-{number:03}-{'x' * 200}")

    build(at_work, deed)
    (told,) = at_work.events("workspace.left_out")
    assert (told["count"], len(told["names"])) == (300, 50)
    assert len(json.dumps(told)) < 25_000


def test_what_a_lost_attempt_left_that_cannot_be_kept_stays_where_it_is(at_work: AtWork):
    build(at_work, lambda place: (place / "a").write_text("1"))

    def dies(place: Path) -> None:
        (place / "a").write_text("half")
        (place / ".GIT").mkdir()
        (place / ".GIT" / "mine").write_text("only here")
        (place / "new").write_text("half")
        inner = scaffold(place)
        bind(inner / "own.sock")
        raise AgentFailed("model_not_found", "No such model.", status=404)

    lost = at_work.ask(Build(project=P, user=U, prompt="do it"))
    at_work.run(lost, does(dies))
    assert build(at_work, nothing) == ["a"]
    assert (at_work.place / "a").read_text() == "1"
    assert (at_work.place / ".GIT" / "mine").read_text() == "only here"
    assert not (at_work.place / "new").exists()
    (aside,) = at_work.events("workspace.kept_aside")
    assert set(kept(aside["ref"])) == {"a", "new", "app/.gitignore", "app/main.js"}
    assert set(left_out(at_work)) == {".GIT", "app/own.sock"}


def test_a_rewind_passes_over_what_cannot_be_kept(at_work: AtWork, bare: Baton):
    build(at_work, lambda place: (place / "a").write_text("1"))
    before = at_work.head()

    def deed(place: Path) -> None:
        scaffold(place)
        os.mkfifo(place / "app" / ".gitattributes")
        os.mkfifo(place / "pipe")
        (place / "a").unlink()
        os.mkfifo(place / "a")

    assert build(at_work, deed) == ["app/.gitignore", "app/main.js"]
    assert set(left_out(at_work)) == {"pipe", "a", "app/.gitattributes.left-out"}
    told = bare("project", P, "--rewind", str(before))
    assert (told.code, "its files are those it had then" in told.out) == (0, True), told
    assert (at_work.place / "a").read_text() == "1"
    assert build(at_work, nothing) == ["a"]


def test_an_import_leaves_out_and_names_the_same(at_work: AtWork, bare: Baton, tmp_path: Path):
    source = tmp_path / "source"
    app = scaffold(source)
    os.mkfifo(app / "pipe")
    (source / ".GIT").mkdir()
    (source / ".GIT" / "x").write_text("x")
    told = bare("project", P, "--user", U, "--import", str(source), "--json")
    assert told.code == 0, told
    assert told.document["files"] == 2
    assert told.document["left_out_count"] == 2
    assert told.document["left_out"] == [
        {"name": ".GIT", "why": "name"},
        {"name": "app/pipe", "why": "pipe"},
    ]
    assert build(at_work, nothing) == ["app/.gitignore", "app/main.js"]


def test_of_a_repository_too_what_git_refuses_is_left_out(
    at_work: AtWork, bare: Baton, tmp_path: Path
):
    """A commit may hold what no `git add` takes."""
    source = tmp_path / "source"
    subprocess.run([*GIT, "init", "-q", source], check=True)
    blob = written(source, "hash-object", "-w", "--stdin", given="x")
    inner = written(source, "mktree", given=f"100644 blob {blob}\tx\n")
    tree = written(
        source, "mktree", given=f"040000 tree {inner}\t.GIT\n100644 blob {blob}\ta.txt\n"
    )
    commit = written(source, "commit-tree", tree, "-m", "x")
    written(source, "update-ref", "refs/heads/main", commit)
    told = bare("project", P, "--user", U, "--import", f"file://{source}")
    assert (told.code, ".GIT/x" in told.out) == (0, True), told
    assert build(at_work, nothing) == ["a.txt"]


def written(repository: Path, *arguments: str, given: str = "") -> str:
    command = [*GIT, "-C", str(repository), *arguments]
    done = subprocess.run(command, input=given.encode(), capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_a_branch_passes_over_what_cannot_be_kept(at_work: AtWork):
    build(at_work, scaffold)

    def deed(place: Path) -> None:
        os.mkfifo(place / "pipe")
        (place / "app" / "b").write_text("b")

    asked = Build(project=P, user=U, prompt="do it", branch_from=at_work.head())
    job = at_work.one(asked, does(deed))
    assert (job.state, job.error) == ("done", None)
    assert left_out(at_work) == {"pipe": "pipe"}
    tree = at_work.value("select tree from branches")
    assert sorted(kept(tree)) == ["app/.gitignore", "app/b", "app/main.js"]
    assert settings().workspaces in at_work.place.parents


def test_what_a_strict_server_refuses_is_left_out_and_the_rest_is_sent(hosts: Hosts):
    """As the hosts of many repositories look at what they are sent (receive.fsckObjects)."""
    remote = hosts.remote / f"{P}.git"
    subprocess.run([*GIT, "init", "-q", "--bare", remote], check=True)
    git(remote, "config", "receive.fsckObjects", "true")

    def deed(place: Path) -> None:
        (place / "a").write_text("1")
        (place / ".gitattributes").write_text("x" * 5000)
        (place / ".gitmodules").write_text('[submodule "x"]\npath = x\nurl = -u./x\n')
        (place / "sub" / ".gitmodules").mkdir(parents=True)
        (place / "sub" / ".gitmodules" / "b").write_text("1")
        (place / "sub" / "c").write_text("1")

    at_work = hosts.at_work
    named = dict.fromkeys((".gitattributes", ".gitmodules", "sub/.gitmodules"), "remote")
    assert build(at_work, deed) == ["a", "sub/c"]
    assert left_out(at_work) == named
    assert git(remote, "ls-tree", "-r", "--name-only", tree_of(at_work)) == ["a", "sub/c"]
    assert build(at_work, lambda place: (place / "d").write_text("1")) == ["a", "d", "sub/c"]
    assert left_out(at_work) == named
    place = hosts.on("two")
    assert build(at_work, nothing) == ["a", "d", "sub/c"]
    assert not (place / ".gitattributes").exists()


def test_of_an_import_too(hosts: Hosts, bare: Baton, tmp_path: Path):
    remote = hosts.remote / f"{P}.git"
    subprocess.run([*GIT, "init", "-q", "--bare", remote], check=True)
    git(remote, "config", "receive.fsckObjects", "true")
    source = tmp_path / "source"
    source.mkdir()
    (source / ".gitattributes").write_text("x" * 5000)
    (source / "a").write_text("1")
    told = bare("project", P, "--user", U, "--import", str(source))
    assert (told.code, ".gitattributes (remote)" in told.out) == (0, True), told
    assert build(hosts.at_work, nothing) == ["a"]
