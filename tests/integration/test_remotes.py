"""BATON_WORKSPACE_REMOTE on a server, by http and ssh: real servers, and all that can be wrong."""

import re
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from db.operations import receipts
from tests.hosts import files, git, writes
from tests.ledger import one
from tests.machine import needs_sshd
from tests.remotes import USER, GitServer, http_server, ssh_server
from tests.running import AtWork, P
from worker.cli import main
from worker.failures.errors import WorkspaceAway
from worker.workspace.transport import address
from worker.workspace.trees import Trees

pytestmark = pytest.mark.agent("direct")

On = Callable[[str], Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "server"
    place.mkdir()
    return place


@pytest.fixture
def on(at_work: AtWork, tmp_path: Path) -> On:
    """`on("two")`: work on that host from now on; the project's workspace there."""
    at_work.agent = writes

    def host(name: str) -> Path:
        at_work.configure(BATON_WORKSPACES=str(tmp_path / name))
        return at_work.place

    host("one")
    return host


@pytest.fixture
def http(at_work: AtWork, on: On, root: Path) -> Iterator[GitServer]:
    with http_server(root) as server:
        at_work.configure(BATON_WORKSPACE_REMOTE=f"{server.url}/{{project}}.git")
        yield server


def goes_from_host_to_host(at_work: AtWork, on: On) -> None:
    assert at_work.build("write a.txt: a").state == "done"
    (at_work.place / "big.bin").write_bytes(bytes(range(256)) * 20_000)
    assert at_work.build("write b.txt: b").state == "done"
    two = on("two")
    assert at_work.chat("what?").state == "done"
    assert (two / "big.bin").stat().st_size == 5_120_000
    (two / "big.bin").unlink()
    assert files(two) == {"a.txt": "a", "b.txt": "b"}
    assert at_work.build("write c.txt: c").state == "done"
    one = on("one")
    assert at_work.chat("what?").state == "done"
    assert files(one) == {"a.txt": "a", "b.txt": "b", "c.txt": "c"}


def test_files_go_from_host_to_host_over_http(at_work: AtWork, on: On, http: GitServer):
    http.provide(P)
    goes_from_host_to_host(at_work, on)
    assert http.asked


@needs_sshd
def test_files_go_from_host_to_host_over_ssh(
    at_work: AtWork, on: On, root: Path, tmp_path: Path
):
    with ssh_server(root, tmp_path / "keys") as (server, path):
        server.provide(P)
        at_work.configure(PATH=path, BATON_WORKSPACE_REMOTE=f"{server.url}/{{project}}.git")
        goes_from_host_to_host(at_work, on)


def waits(at_work: AtWork, *secrets: str) -> str:
    """A build waits for the remote, soon; its sentence, in which no secret is."""
    began = time.monotonic()
    job = at_work.build("write a.txt: a")
    assert time.monotonic() - began < 100, "nobody was asked"
    assert (job.state, job.error_class, job.attempts) == ("queued", "workspace_away", 0)
    assert job.error
    assert re.match(
        "The files of project shop cannot be sent to BATON_WORKSPACE_REMOTE", job.error
    )
    for secret in secrets:
        assert secret not in job.error
    return job.error


def test_a_wrong_address_is_waited_for(at_work: AtWork, http: GitServer):
    assert f"repository '{http.url}/shop.git/' not found" in waits(at_work)
    http.provide(P)
    (waiting,) = at_work.rows("select id from jobs where state = 'queued'")
    assert at_work.again(waiting[0]).state == "done"


def test_a_server_that_is_down_is_waited_for(at_work: AtWork, on: On):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    at_work.configure(
        BATON_WORKSPACE_REMOTE=f"http://ann:secret@127.0.0.1:{port}/{{project}}.git"
    )
    assert "Failed to connect to 127.0.0.1" in waits(at_work, "secret", "ann:")
    at_work.configure(BATON_WORKSPACE_REMOTE=f"ssh://git@127.0.0.1:{port}/{{project}}.git")
    (waiting,) = at_work.rows("select id from jobs where state = 'queued'")
    again = at_work.again(waiting[0])
    assert again.error_class == "workspace_away"
    assert "Connection refused" in str(again.error)


@pytest.mark.parametrize("whose", ["", "secret-token@", f"{USER}:wrong-secret@"])
def test_a_server_that_wants_a_password_asks_nobody(
    at_work: AtWork, on: On, root: Path, whose: str
):
    with http_server(root, password="right") as server:
        server.provide(P)
        url = server.url.replace("://", f"://{whose}")
        at_work.configure(
            BATON_WORKSPACE_REMOTE=f"{url}/{{project}}.git",
            SSH_ASKPASS="/bin/false",
            DISPLAY=":0",
        )
        told = waits(at_work, "secret", "token")
        assert re.search("could not read (Username|Password)|Authentication failed", told)


def test_a_password_is_taken_from_the_url_or_from_netrc(
    at_work: AtWork, on: On, root: Path, tmp_path: Path
):
    with http_server(root, password="right") as server:
        server.provide(P)
        url = server.url.replace("://", f"://{USER}:right@")
        at_work.configure(BATON_WORKSPACE_REMOTE=f"{url}/{{project}}.git")
        assert at_work.build("write a.txt: a").state == "done"
        at_work.configure(BATON_WORKSPACE_REMOTE=f"{server.url}/{{project}}.git")
        netrc = tmp_path / "home" / ".netrc"
        netrc.write_text(f"machine 127.0.0.1 login {USER} password right\n")
        netrc.chmod(0o600)
        assert at_work.build("write b.txt: b").state == "done"
        assert len(git(root / f"{P}.git", "for-each-ref")) == 2


@needs_sshd
def test_a_key_or_a_host_that_ssh_does_not_know_asks_nobody(
    at_work: AtWork, on: On, root: Path, tmp_path: Path
):
    home = tmp_path / "keys"
    with ssh_server(root, home) as (server, path):
        at_work.configure(PATH=path, BATON_WORKSPACE_REMOTE=f"{server.url}/{{project}}.git")
        assert "does not appear to be a git repository" in waits(at_work)
        (waiting,) = at_work.rows("select id from jobs where state = 'queued'")
        server.provide(P)
        known, config = (home / "known").read_text(), (home / "config").read_text()
        (home / "known").write_text("")
        assert "Host key verification failed" in str(at_work.again(waiting[0]).error)
        (home / "known").write_text(known)
        (home / "config").write_text(config.replace(f"{home}/key", f"{home}/host"))
        again = at_work.again(waiting[0])
        assert again.error_class == "workspace_away"
        assert "Permission denied" in str(again.error)
        (home / "config").write_text(config)
        assert at_work.again(waiting[0]).state == "done"


def refs(root: Path, project: str = P) -> list[str]:
    return git(root / f"{project}.git", "for-each-ref", "--format=%(refname)")


def test_a_deletion_empties_the_repository_on_the_server(
    at_work: AtWork, http: GitServer, capsys: pytest.CaptureFixture[str]
):
    place = http.provide(P)
    at_work.build("write a.txt: a")
    at_work.build("write b.txt: b")
    git(place, "update-ref", "refs/heads/theirs", str(refs(http.root)[0]))
    assert main(["delete", "project", P, "--yes"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"refs on the server:?\s+2", told), told
    assert refs(http.root) == ["refs/heads/theirs"], "what is not ours stays"
    assert one(at_work.conn, "select remote_refs from deletions") == 2


def test_a_deletion_that_does_not_reach_the_server_says_so_and_is_gone_on_with(
    at_work: AtWork, on: On, root: Path, capsys: pytest.CaptureFixture[str]
):
    with http_server(root) as server:
        server.provide(P)
        url = server.url.replace("://", "://ann:secret@")
        at_work.configure(BATON_WORKSPACE_REMOTE=f"{url}/{{project}}.git")
        at_work.build("write a.txt: a")
    assert main(["delete", "project", P, "--yes"]) == 1
    told = capsys.readouterr().err
    assert re.search(
        "on the server of BATON_WORKSPACE_REMOTE are not removed .*Ask again", told
    )
    assert "secret" not in told
    assert not at_work.place.exists()
    assert receipts.unfinished(at_work.conn)
    with http_server(root) as server:
        at_work.configure(BATON_WORKSPACE_REMOTE=f"{server.url}/{{project}}.git")
        assert main(["delete", "project", P, "--yes"]) == 0
    assert refs(root) == []
    assert receipts.unfinished(at_work.conn) == []
    assert one(at_work.conn, "select remote_refs from deletions") == 1


def test_a_deletion_ends_without_a_server_that_is_gone_for_good(at_work: AtWork, on: On):
    at_work.build("write a.txt: a")
    at_work.configure(BATON_WORKSPACE_REMOTE="http://127.0.0.1:1/{project}.git")
    assert main(["delete", "project", P, "--yes"]) == 1
    at_work.configure(BATON_WORKSPACE_REMOTE=None)
    assert main(["delete", "project", P, "--yes"]) == 0
    assert receipts.unfinished(at_work.conn) == []


def test_a_project_that_the_server_does_not_have_is_named(
    at_work: AtWork, on: On, http: GitServer, capsys: pytest.CaptureFixture[str]
):
    at_work.configure(BATON_WORKSPACE_REMOTE=None)
    at_work.build("write a.txt: a")
    at_work.configure(BATON_WORKSPACE_REMOTE=f"{http.url}/{{project}}.git")
    assert main(["delete", "user", "ann", "--yes"]) == 0
    assert "has no repository of project shop, or does not show it" in capsys.readouterr().out


def doctor(capsys: pytest.CaptureFixture[str]) -> str:
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    return next((line for line in lines if "BATON_WORKSPACE_REMOTE" in line), "")


def test_doctor_says_whether_the_remote_can_be_used(
    at_work: AtWork, http: GitServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "can be reached" in doctor(capsys), "it answers; nothing was sent yet"
    http.provide(P)
    at_work.build("write a.txt: a")
    assert "can be reached" in doctor(capsys)
    (http.root / f"{P}.git").rename(http.root / "moved.git")
    assert "shows no repository of project shop" in doctor(capsys)
    at_work.configure(BATON_WORKSPACE_REMOTE="http://ann:secret@127.0.0.1:1/{project}.git")
    told = doctor(capsys)
    assert "cannot be reached" in told
    assert "secret" not in told
    at_work.configure(BATON_WORKSPACE_REMOTE=f"file://{tmp_path}/far/{{project}}.git")
    assert f"there is no directory {tmp_path}/far" in doctor(capsys)
    (tmp_path / "far").mkdir()
    assert "can be reached" in doctor(capsys)
    at_work.configure(BATON_WORKSPACE_REMOTE=None)
    assert doctor(capsys) == ""


def test_a_server_that_says_nothing_is_not_waited_for_without_end(tmp_path: Path):
    trees = Trees(tmp_path / "x.git", tmp_path)
    trees.create()
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://ann:secret@127.0.0.1:{deaf.getsockname()[1]}/x.git"
        with pytest.raises(WorkspaceAway, match=r"^no answer in 0\.5 s$") as caught:
            trees.refs_of(url, ["refs/*"], within=0.5)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_what_git_says_of_a_url_has_no_password_in_it(at_work: AtWork, tmp_path: Path):
    """Also where the password has signs of a URL in it."""
    at_work.configure(BATON_WORKSPACE_REMOTE="https://ann:s@e:cret@127.0.0.1:1/{project}.git")
    trees = Trees(tmp_path / "x.git", tmp_path)
    trees.create()
    with pytest.raises(WorkspaceAway, match="unable to access") as caught:
        trees.refs_of(address(P), ["refs/*"])
    assert "cret" not in str(caught.value)
