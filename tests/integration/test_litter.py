"""What the CLI leaves and what it sweeps away: neither can hurt a session."""

import os
import shutil
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from config.settings import settings
from db.transcripts import appends, listings, transcripts
from tests.conftest import Configure
from tests.running import AtWork, P
from worker.agent import Request, Turn, Watch
from worker.agent.claude import claude
from worker.agent.store import JobStore
from worker.cleanup.litter import sweep_directories

pytestmark = pytest.mark.agent("direct")

MONTHS_AGO = timedelta(days=100)  # the CLI sweeps transcripts after 30 (cleanupPeriodDays)


def test_each_turn_has_a_directory_of_its_own_that_is_gone_with_it(at_work: AtWork):
    seen: list[list[str]] = []

    def looking(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        def saw(what: str, body: dict[str, Any]) -> None:
            if what == "tool":
                seen.append(sorted(entry.name for entry in _scratch().iterdir()))

        return claude(request, store=store, watch=replace(watch, saw=saw))

    for prompt in ("write a.txt: 1", "write b.txt: 2"):
        job = at_work.build(prompt, agent=looking)
        assert seen.pop() == [at_work.turns(job.id)[0]["minted_session_id"]]
        assert list(_scratch().iterdir()) == []


def test_the_clis_socket_is_where_temporary_files_are(
    at_work: AtWork, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
):
    """However long the path of its own directory is: killed, it leaves nothing in /tmp."""
    at_work.configure(
        BATON_SANDBOX="off", BATON_AGENT_HOME=str(tmp_path_factory.mktemp("x" * 80))
    )
    with tempfile.TemporaryDirectory(prefix="s") as short:
        monkeypatch.setenv("TMPDIR", short)
        seen: list[str] = []

        def looking(request: Request, *, store: JobStore, watch: Watch) -> Turn:
            def saw(what: str, body: dict[str, Any]) -> None:
                seen.extend(each.suffix for each in Path(short, "cc-socks").iterdir())

            return claude(request, store=store, watch=replace(watch, saw=saw))

        at_work.build("write a.txt: 1", agent=looking)
        assert set(seen) == {".sock"}


def test_a_session_is_resumed_though_nothing_is_on_the_disk(at_work: AtWork):
    first = at_work.build("write a.txt: 1")
    shutil.rmtree(settings().agent_home)
    second = at_work.build("write b.txt: 2")
    assert (first.state, second.state) == ("done", "done")
    (turn,) = at_work.turns(second.id)
    assert turn["relation"] == "forked"
    assert at_work.model.requests[-1].prompts == ("write a.txt: 1", "write b.txt: 2")


@pytest.mark.agent("cli")
def test_the_clis_own_sweep_does_not_reach_a_session_that_is_months_old(at_work: AtWork):
    at_work.configure(BATON_STALE_AFTER=str(int(2 * MONTHS_AGO.total_seconds())))
    at_work.build("write a.txt: 1")
    head = at_work.head()
    assert head
    _make_old(at_work, head)
    second = at_work.build("write b.txt: 2")
    (turn,) = at_work.turns(second.id)
    assert (second.state, turn["relation"]) == ("done", "forked")
    assert at_work.model.requests[-1].prompts == ("write a.txt: 1", "write b.txt: 2")
    assert transcripts.exists(at_work.conn, P, head), "the parent is where it was"


def _make_old(at_work: AtWork, session: str) -> None:
    """All that says when the session was written says: months ago."""
    entries = transcripts.load(at_work.conn, P, session) or []
    old = (datetime.now(UTC) - MONTHS_AGO).isoformat().replace("+00:00", "Z")
    aged = [entry | ({"timestamp": old} if "timestamp" in entry else {}) for entry in entries]
    assert aged != entries
    with at_work.conn.transaction():
        listings.delete(at_work.conn, P, session)
        appends.append(at_work.conn, P, session, aged)
    at_work.conn.execute(
        "update transcript_sessions set updated_at = now() - %s", (MONTHS_AGO,)
    )
    at_work.age(session, int(MONTHS_AGO.total_seconds() // 3600))


def test_litter_of_dead_runs_is_swept_and_nothing_else(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    scratch = _scratch()
    dead = scratch / str(uuid4())
    (dead / "claude-resume-abc" / "projects").mkdir(parents=True)
    (dead / "claude-resume-abc" / "projects" / "s.jsonl").write_text("{}")
    (scratch / "claude-1234-cwd").write_text("/")
    (scratch / "link").symlink_to(outside)
    for old in (*scratch.iterdir(),):
        _age(old, hours=25)
    running = scratch / str(uuid4())
    running.mkdir()
    assert sweep_directories() == 3
    assert list(scratch.iterdir()) == [running]
    assert (outside / "kept.txt").read_text() == "kept"
    assert sweep_directories() == 0


def test_a_turn_that_may_take_days_is_not_taken_for_dead(configure: Configure):
    configure(BATON_TURN_TIMEOUT=str(48 * 3600))
    running = _scratch() / str(uuid4())
    running.mkdir(parents=True)
    _age(running, hours=47)
    assert sweep_directories() == 0
    _age(running, hours=97)
    assert sweep_directories() == 1


def _scratch() -> Path:
    return settings().agent_home / "tmp"


def _age(path: Path, *, hours: int) -> None:
    at = time.time() - hours * 3600
    os.utime(path, (at, at), follow_symlinks=False)
