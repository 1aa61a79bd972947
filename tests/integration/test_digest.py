"""What is told of a project's files where they are not at hand: what Postgres has noted."""

from pathlib import Path

import pytest

from db.projects import branches, projects
from tests import ledger
from tests.running import AtWork, P, U
from worker.client import Build
from worker.session import digest

pytestmark = pytest.mark.agent("direct")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The workspace on a host that has nothing of it."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def told(at_work: AtWork, place: Path, *, user: str = U, **options: str | None) -> str:
    """What a fresh session would be told there, of a branch if `branch_from` says so."""
    job = ledger.begun(at_work.conn, "update", project=P, user_id=user, options=options)
    text = digest.retell(job, place, "go on")
    ledger.finish(at_work.conn, job, "cancelled")
    return text


def test_files_and_documentation_are_told_on_a_host_without_them(
    at_work: AtWork, elsewhere: Path
):
    at_work.chain(Build(project=P, user=U, prompt="write index.html: hello"))
    (at_work.place / "DOCUMENTATION.md").write_text("of later, and of nobody's turn")

    text = told(at_work, elsewhere)

    assert "## Files as of the last turn, not on this host\n" in text
    assert "index.html" in text
    assert "# Documentation" in text
    assert "of later" not in text
    assert text.endswith("</project-history>\n\ngo on")


def test_where_the_workspace_is_its_own_files_are_told(at_work: AtWork):
    at_work.chain(Build(project=P, user=U, prompt="write index.html: hello"))
    (at_work.place / "by-hand.txt").write_text("x")
    text = told(at_work, at_work.place)
    assert "by-hand.txt" in text
    assert "not on this host" not in text


def test_a_branch_and_what_is_promoted_have_the_files_of_their_own_turns(
    at_work: AtWork, elsewhere: Path
):
    at_work.build("write a.txt: 1")
    head = at_work.head()
    at_work.chain(Build(project=P, user=U, prompt="write b.txt: 2", branch_from=head))
    (branch,) = branches.of_project(at_work.conn, P)
    text = told(at_work, elsewhere, branch_from=branch.head)
    assert "a.txt\n| b.txt" in text
    assert "# Documentation" in text, "the branch's"

    assert "b.txt" not in (main := told(at_work, elsewhere))
    assert "# Documentation" not in main
    branches.promote(at_work.conn, P, branch.lane)
    text = told(at_work, elsewhere)
    assert "a.txt\n| b.txt" in text
    assert "# Documentation" in text


def test_after_a_rewind_the_files_of_then_are_told(at_work: AtWork, elsewhere: Path):
    at_work.build("write a.txt: 1")
    head = at_work.head()
    at_work.build("write b.txt: 2")
    assert head
    projects.rewind(at_work.conn, P, head)
    text = told(at_work, elsewhere)
    assert "a.txt" in text
    assert "b.txt" not in text


def test_who_a_project_is_handed_to_is_told_its_files_and_no_words_of_before(
    at_work: AtWork, elsewhere: Path
):
    at_work.build("write a.txt: 1\nsay my secret")
    assert "my secret" in told(at_work, elsewhere)
    at_work.conn.execute("update projects set user_id = 'eve'")
    for place in (elsewhere, at_work.place):
        text = told(at_work, place, user="eve")
        assert "a.txt" in text
        assert "my secret" not in text


def test_files_are_noted_with_the_commit_that_made_them(at_work: AtWork):
    at_work.build("write a.txt: 1")
    at_work.chat("say hi")
    at_work.build("write b.txt: 2")
    noted = "select digest_files from project_ai_session_metrics order by created_at"
    assert [files for (files,) in at_work.rows(noted)] == [["a.txt"], None, ["a.txt", "b.txt"]]
