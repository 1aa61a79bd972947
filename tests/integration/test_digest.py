"""What is told of a project's files where they are not at hand: what Postgres has noted."""

from pathlib import Path

import pytest

from db import chat
from tests import ledger
from tests.running import AtWork, P, U
from worker import digest
from worker.client import Build


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The workspace on a host that has nothing of it."""
    (tmp_path / "elsewhere").mkdir()
    return tmp_path / "elsewhere"


def told(at_work: AtWork, place: Path) -> str:
    """What a fresh session would be told there."""
    job = ledger.begun(at_work.conn, "update", project=P, user_id=U)
    return digest.retell(job, place, "go on")


def test_files_and_documentation_are_told_on_a_host_without_them(
    at_work: AtWork, elsewhere: Path
):
    at_work.chain(Build(project=P, user=U, prompt="write index.html: hello"))
    (at_work.place / "DOCUMENTATION.md").write_text("of later, and of nobody's turn")

    text = told(at_work, elsewhere)

    assert "## Files of the last version, not on this host\n" in text
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


def test_what_was_noted_of_a_version_is_of_its_newest_session(at_work: AtWork):
    at_work.build("write a.txt: 1")
    version, session = at_work.rows("select version_id, ai_session_id from project_versions")[0]
    assert at_work.value("select digest_files from project_versions") == ["a.txt"]

    def note(of: str, file: str) -> None:
        chat.note_files(
            at_work.conn, P, version=version, session=of, files=[file], documentation=""
        )

    note("another", "of a worker that was late")
    assert at_work.value("select digest_files from project_versions") == ["a.txt"]
    note(session, "b.txt")
    assert at_work.value("select digest_files from project_versions") == ["b.txt"]
