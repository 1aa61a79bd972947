"""Going back moves the session and the files, here at once and elsewhere with the next job."""

from datetime import timedelta
from pathlib import Path

import pytest

from config.settings import settings
from db.operations import upkeep
from tests.commandline import Baton
from tests.commandline import bare as bare
from tests.hosts import Hosts, aside, files, kept, trees
from tests.hosts import hosts as hosts
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.client import Update
from worker.failures.errors import AgentFailed
from worker.process import crash_points

pytestmark = pytest.mark.agent("direct")


@pytest.fixture
def first(hosts: Hosts) -> str:
    """Two builds on host one; the session after the first."""
    hosts.at_work.build("write a.txt: one")
    session = hosts.at_work.head()
    hosts.at_work.build("write a.txt: two\nwrite b.txt: two")
    assert session
    return session


def test_the_files_go_back_at_once_and_what_was_there_is_kept(
    hosts: Hosts, bare: Baton, first: str
):
    at_work = hosts.at_work
    (at_work.place / "c.txt").write_text("by hand")
    told = bare("project", "shop", "--rewind", first)
    assert files(at_work.place) == {"a.txt": "one"}
    (ref,) = aside(at_work)
    assert kept(ref) == {"a.txt": "two", "b.txt": "two", "c.txt": "by hand"}
    assert (told.code, f"kept in its repository as {ref}" in told.out) == (0, True)
    one, two, back, now = trees(at_work)
    assert one == back == now != two
    at_work.build("write d.txt: three")
    assert files(at_work.place) == {"a.txt": "one", "d.txt": "three"}
    assert aside(at_work) == [ref]
    assert violations(at_work.conn) == []


def test_a_head_stays_while_a_chain_is_under_way(hosts: Hosts, bare: Baton, first: str):
    """What follows the build would go on from the other session in the build's name."""
    at_work = hosts.at_work
    asked = at_work.ask(Update(project=P, user=U, prompt="write c.txt: three"))
    assert bare("project", "shop", "--rewind", first).code == 0
    at_work.run(asked)
    head = at_work.head()
    told = bare("project", "shop", "--rewind", first)
    assert (told.code, at_work.head()) == (1, head)
    assert "The metadata " in told.err
    assert "is still to come: wait for it, or cancel it first." in told.err


def test_a_session_without_a_transcript_is_nothing_to_go_back_to(
    hosts: Hosts, bare: Baton, first: str
):
    head = hosts.at_work.head()
    hosts.at_work.lose(first)
    told = bare("project", "shop", "--rewind", first)
    assert (told.code, hosts.at_work.head()) == (1, head)
    assert "The transcript of that session cannot be loaded (not_found): choose" in told.err


@pytest.mark.parametrize("then", ["chat", "build"])
def test_a_host_without_the_files_leaves_it_to_the_next_job(
    hosts: Hosts, bare: Baton, first: str, then: str
):
    at_work, one = hosts.at_work, hosts.at_work.place
    hosts.on("an operator's")
    told = bare("project", "shop", "--rewind", first)
    assert "its files follow when its next job begins" in told.out
    two = hosts.on("two")
    at_work.chat("what?")
    assert files(two) == {"a.txt": "one"}
    assert files(one) == {"a.txt": "two", "b.txt": "two"}
    hosts.on("one")
    at_work.chat("what?") if then == "chat" else at_work.build("write c.txt: c")
    assert files(one) == {"a.txt": "one"} | ({} if then == "chat" else {"c.txt": "c"})
    (ref,) = aside(at_work)
    assert kept(ref) == {"a.txt": "two", "b.txt": "two"}


def test_one_can_go_forward_again(hosts: Hosts, bare: Baton, first: str):
    at_work, second = hosts.at_work, hosts.at_work.head()
    bare("project", "shop", "--rewind", first)
    assert bare("project", "shop", "--rewind", str(second)).code == 0
    assert files(at_work.place) == {"a.txt": "two", "b.txt": "two"}
    at_work.chat("what?")
    place = hosts.on("two")
    at_work.chat("what?")
    assert files(place) == {"a.txt": "two", "b.txt": "two"}


def test_what_a_dead_attempt_left_makes_way_too(
    hosts: Hosts, bare: Baton, first: str, monkeypatch: pytest.MonkeyPatch
):
    at_work = hosts.at_work

    def strike(point: str) -> None:
        if point == "commit.before":
            raise AgentFailed("start_failed", "no")

    monkeypatch.setattr(crash_points, "strike", strike)
    assert at_work.build("write half.txt: half").state == "failed"
    monkeypatch.setattr(crash_points, "strike", None)
    bare("project", "shop", "--rewind", first)
    assert files(at_work.place) == {"a.txt": "one"}
    (ref,) = aside(at_work)
    assert kept(ref)["half.txt"] == "half"
    at_work.build("write c.txt: c")
    assert files(at_work.place) == {"a.txt": "one", "c.txt": "c"}
    assert hosts.sent() == set(trees(at_work))


def test_what_git_was_told_to_ignore_since_then_is_kept_too(hosts: Hosts, bare: Baton):
    at_work = hosts.at_work
    at_work.build("write a.txt: one")
    first = at_work.head()
    at_work.build("write .gitignore: secret.env")
    (at_work.place / "secret.env").write_text("by hand")
    bare("project", "shop", "--rewind", str(first))
    assert files(at_work.place) == {"a.txt": "one"}
    assert "by hand" in [kept(ref).get("secret.env") for ref in aside(at_work)]


def test_a_session_of_which_no_files_are_known_leaves_them(at_work: AtWork, bare: Baton):
    at_work.build("write a.txt: one")
    first = at_work.head()
    at_work.build("write a.txt: two")
    at_work.conn.execute("update session_transitions set tree = null")
    told = bare("project", "shop", "--rewind", str(first))
    assert "its files stay" in told.out
    assert files(at_work.place) == {"a.txt": "two"}


def test_an_archived_move_still_knows_its_files(hosts: Hosts, bare: Baton, first: str):
    at_work = hosts.at_work
    version = at_work.value("select version_id from session_transitions order by id limit 1")
    at_work.conn.execute("update session_transitions set version_id = null")
    at_work.conn.execute("update session_transitions set created_at = now() - interval '1 y'")
    assert upkeep.archive_transitions(at_work.conn, timedelta(days=30)) == 1
    assert version
    assert bare("project", "shop", "--rewind", first).code == 0
    assert files(at_work.place) == {"a.txt": "one"}


def test_a_workspace_that_is_elsewhere_does_not_stop_an_operator(
    hosts: Hosts, bare: Baton, first: str, tmp_path: Path
):
    hosts.at_work.configure(BATON_WORKSPACE_REMOTE=None, BATON_WORKSPACES=str(tmp_path / "x"))
    told = bare("project", "shop", "--rewind", first)
    assert (told.code, "its files follow" in told.out) == (0, True)
    assert not settings().workspaces.exists()
