"""The main job, seen from outside: build, update and chat, each going on from the one before.

One story is run, and each test looks at a side of it:

    build A ─► recommendations ─► documentation ─► compaction C
    update from C, and while it runs: metadata, a chat-plan question
"""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import pytest

from db.projects import projects
from tests.acceptance.outside import Baton, Row, files
from tests.conftest import keys_without_end
from tests.waiting import wait_until
from worker.client import Build, ChatPlan, Metadata, Update, chain, latest_version, wait

FIRST = "write index.html: <h1>One</h1>\nwrite notes/why.txt: because"
SECOND = "Make the header blue, please; it is too red."
QUESTION = "What did we do so far?"
WHOLE = ["build", "metadata", "metadata", "compact"]  # what a build's chain does to the head
HOUR = 3_600_000  # milliseconds


@dataclass(frozen=True)
class Story:
    project: str
    build: UUID
    update: UUID
    metadata: UUID
    chat: UUID
    checkpoints: list[tuple[Row, int]]  # of the build's chain: the document, its TTL in ms
    before_chat: dict[str, bytes]
    moves: list[Row]


@pytest.fixture(scope="module")
def story(running: Baton) -> Story:
    return _tell(running)


def _tell(baton: Baton) -> Story:
    project = baton.project("story")
    checkpoints: list[tuple[Row, int]] = []
    baton.model.fault("slow", when="recommendations for what to do next", pace=0.05)
    build = baton.ask(Build(project=project, user="ann", prompt=FIRST))
    read = _reader(baton, build, checkpoints)
    baton.ended(build, meanwhile=read)
    wait_until(  # it is written after the commit
        lambda: read() or checkpoints[-1][0]["sessionId"] == baton.head(project),
        description="the last checkpoint",
    )
    update = baton.ask(Update(project=project, user="ann", prompt=SECOND))
    baton.until(update, "running")
    metadata = baton.ask(Metadata(project=project, user="ann"))
    chat = baton.ask(ChatPlan(project=project, user="ann", prompt=QUESTION))
    baton.ended(metadata)
    before = files(baton.workspace(project))
    baton.ended(chat)
    return Story(
        project, build, update, metadata, chat, checkpoints, before, baton.moves(project)
    )


def _reader(baton: Baton, build: UUID, found: list[tuple[Row, int]]) -> Callable[[], None]:
    """Note the build's checkpoint as it stands now."""
    key = f"claude:session:{build}"

    def read() -> None:
        with baton.redis(1) as client:
            text, ttl = client.get(key), client.pttl(key)
        if text:
            found.append((json.loads(str(text)), ttl))

    return read


def test_the_first_build_leaves_its_files_a_version_and_a_head(baton: Baton, story: Story):
    place = baton.workspace(story.project)
    assert (place / "index.html").read_text() == "<h1>One</h1>"
    assert (place / "notes/why.txt").read_text() == "because"
    job = baton.job(story.build)
    assert job["state"] == "done"
    assert job["result"]["files_created"] == ["index.html", "notes/why.txt"]
    first = story.moves[0]
    assert (first["source"], first["old_session_id"], first["parent_session_id"]) == (
        "build",
        None,
        None,
    )
    version = baton.row(
        "select * from project_versions where project_id = %s and version_id = %s",
        story.project,
        str(story.build),
    )
    assert version["status"] == "built"
    assert version["ai_session_created_at"] < version["ai_session_last_used_at"]
    assert first["version_id"] == version["version_id"]


def test_a_version_holds_the_files_as_they_were(baton: Baton, story: Story):
    trees = baton.rows(
        "select tree from project_versions where project_id = %s order by id", story.project
    )
    (repository,) = [
        path.parent
        for path in (baton.root / "workspaces/.trees").glob(f"{story.project}*/HEAD")
    ]
    shown = [
        subprocess.check_output(
            ["git", "--git-dir", str(repository), "ls-tree", "-r", "--name-only", row["tree"]],
            text=True,
        ).split()
        for row in trees
    ]
    assert shown[0] == ["DOCUMENTATION.md", "index.html", "notes/why.txt"]
    assert set(shown[1]) > set(shown[0])


def test_metadata_and_compaction_follow_by_themselves(baton: Baton, story: Story):
    assert [move["source"] for move in story.moves[:4]] == WHOLE
    build, metadata, compaction = chain(baton.conn, story.build)
    assert [one.kind for one in (build, metadata, compaction)] == [
        "build",
        "metadata",
        "compaction",
    ]
    assert metadata.parent_id == build.id
    assert compaction.parent_id == metadata.id
    result = baton.job(metadata.id)["result"]
    assert result["recommendations"]["summary"]
    assert (baton.workspace(story.project) / result["documentation"]).stat().st_size
    assert baton.job(compaction.id)["result"]["post_tokens"] > 0


def test_every_session_has_its_owner_and_its_figures(baton: Baton, story: Story):
    found = baton.rows(
        "select * from project_ai_session_metrics where project_id = %s order by created_at",
        story.project,
    )
    assert [one["session_id"] for one in found] == [m["new_session_id"] for m in story.moves]
    for one in found:
        assert (one["user_id"], one["is_resumable"], one["resume_failure_count"]) == (
            "ann",
            True,
            0,
        )
        assert one["cli_version"]
        assert one["duration_ms"] > 0
        assert one["cost_usd"] > 0
        # Of a compaction the CLI reports the cost, and no tokens.
        assert one["step"] == "compaction" or one["output_tokens"] > 0
    assert [one["status"] for one in found[-2:]] == ["disconnected", "active"]


def test_head_version_and_transitions_are_in_step_after_every_step(baton: Baton, story: Story):
    news = [move["new_session_id"] for move in story.moves]
    seen = baton.in_step.heads[story.project]
    wait_until(lambda: seen[-1] == news[-1], description="the newest head to be looked at")
    assert seen == news, "each step moved the head at once, and was seen from outside"
    assert baton.in_step.looks > 20
    assert baton.in_step.wrong == []
    assert baton.head(story.project) == news[-1]


def test_an_update_goes_on_from_the_compacted_session(baton: Baton, story: Story):
    compacted, update = story.moves[3], story.moves[4]
    assert update["source"] == "update"
    assert update["old_session_id"] == compacted["new_session_id"]
    assert update["parent_session_id"] == compacted["new_session_id"]
    assert baton.tries(story.update) == [(compacted["new_session_id"], "resumed", None)]


def test_the_model_sees_in_an_update_what_was_asked_before(baton: Baton, story: Story):
    seen = baton.seen_of(story.project, SECOND)
    assert seen.prompts[0] == FIRST
    assert seen.prompts[-1] == SECOND
    assert seen.history == "", "it is the session that knows, not a digest"


def test_metadata_asked_for_while_a_build_runs_keeps_its_place(baton: Baton, story: Story):
    ran = [(job["id"], job["kind"], job["chain_id"]) for job in baton.jobs(story.project)]
    assert [kind for _, kind, _ in ran] == [
        *("build", "metadata", "compaction"),
        *("build", "metadata", "compaction"),
        "metadata",
        "chat_plan",
    ]
    assert [one for one, *_ in ran[6:]] == [story.metadata, story.chat]
    assert [move["source"] for move in story.moves] == [
        *WHOLE,
        *("update", *WHOLE[1:]),
        *("metadata", "metadata"),
        "chat_plan",
    ]
    assert all(move["parent_session_id"] == move["old_session_id"] for move in story.moves)


def test_a_chat_plan_knows_the_project_and_changes_no_file(baton: Baton, story: Story):
    answer = baton.job(story.chat)["result"]["text"]
    assert SECOND in answer
    assert "write index.html" in answer
    assert files(baton.workspace(story.project)) == story.before_chat


def test_a_chat_plan_is_logged_with_its_sessions(baton: Baton, story: Story):
    head = baton.head(story.project)
    said = baton.rows(
        "select * from project_chat_log_minimal where job_id = %s order by id", story.chat
    )
    assert [(one["role"], one["session_id"], one["ai_session_id"]) for one in said] == [
        ("user", head, head),
        ("assistant", head, head),
    ]
    assert said[0]["content"] == QUESTION
    assert said[1]["content"] == baton.job(story.chat)["result"]["text"]
    assert (
        baton.row("select * from chat_plan_sessions where session_id = %s", head)["project_id"]
        == story.project
    )


def test_a_chat_plan_moves_the_head_and_leaves_the_version(baton: Baton, story: Story):
    *_, before, chat = story.moves
    assert (chat["source"], chat["version_id"]) == ("chat_plan", None)
    version = latest_version(baton.conn, story.project)
    assert version
    assert version.version_id == str(story.update)
    assert version.ai_session_id == before["new_session_id"] == chat["old_session_id"]
    synced = baton.row(
        "select sync_status from session_sync where project_id = %s", story.project
    )
    assert synced["sync_status"] == "SYNCED"


def test_the_chain_is_told_newest_first(baton: Baton, story: Story):
    told = projects.session_chain(baton.conn, story.project)
    assert [one["id"] for one in told] == [move["id"] for move in reversed(story.moves)]


def test_each_job_is_handed_the_session_of_the_one_before(baton: Baton, story: Story):
    build, metadata, compaction = chain(baton.conn, story.build)
    handed = {metadata.id: story.moves[0], compaction.id: story.moves[2]}
    for job in (metadata, compaction):
        told = baton.task_in(str(job.id), "SUCCESS")
        assert handed[job.id]["new_session_id"] in told["kwargs"]
        assert str(job.id) in told["kwargs"]
        assert told["root_id"] == str(build.id)
        assert told["parent_id"] == str(job.parent_id)
    assert baton.task_in(str(build.id), "SUCCESS")["name"] == "tasks.build"


def test_the_checkpoint_follows_the_chain_for_an_hour(baton: Baton, story: Story):
    sessions = list(dict.fromkeys(one["sessionId"] for one, _ in story.checkpoints))
    assert sessions == [move["new_session_id"] for move in story.moves[:4]]
    for found, ttl in story.checkpoints:
        assert set(found) == {"sessionId", "buildId", "projectPath", "filesCreated"}
        assert found["buildId"] == str(story.build)
        assert found["projectPath"] == str(baton.workspace(story.project))
        assert found["filesCreated"] == ["index.html", "notes/why.txt"]
        assert 0 < ttl <= HOUR


def test_the_checkpoint_is_refreshed_while_a_step_runs(story: Story):
    of_one_step = [
        (ttl, later)
        for (was, ttl), (now, later) in zip(
            story.checkpoints, story.checkpoints[1:], strict=False
        )
        if was["sessionId"] == now["sessionId"]
    ]
    assert any(later > ttl + 100 for ttl, later in of_one_step), "its end was pushed back"


def test_every_key_of_ours_ends_by_itself(baton: Baton, story: Story):
    assert keys_without_end(baton.up.redis_url) == []
    with baton.redis(2) as client:
        assert client.ttl(f"events:{story.project}") > 0
        assert client.ttl(f"progress:{story.build}") > 0


def test_events_are_numbered_without_a_gap_and_copied_to_redis(baton: Baton, story: Story):
    log = baton.events(story.project)
    assert [one["seq"] for one in log] == list(range(1, len(log) + 1))
    # The copy is made after the commit, by whoever made it: the last may be on its way, and one
    # that came behind a later one stays out (a reader that misses a number asks Postgres).
    last = log[-1]["seq"]
    wait_until(
        lambda: last in copy_of(baton, story.project), description="the last event's copy"
    )
    copied = copy_of(baton, story.project)
    for one in log:
        if fields := copied.get(one["seq"]):
            assert fields["type"] == one["type"]
            assert fields["job"] == str(one["job_id"] or "")
            assert json.loads(fields["body"]) == one["body"]
    assert len(copied) > len(log) / 2, "most of the log is read from Redis"


def copy_of(baton: Baton, project: str) -> dict[int, dict[str, str]]:
    """The project's events in Redis, by their number."""
    return {int(number.partition("-")[0]): one for number, one in baton.stream(project)}


def test_events_tell_the_story_in_order(baton: Baton, story: Story):
    told = [one["type"] for one in baton.events(story.project) if one["job_id"] == story.build]
    assert told == [
        *("job.queued", "chat.said", "job.started", "session.moved", "chat.said", "job.done"),
    ]
    moved = baton.events(story.project, "session.moved")
    assert [one["body"]["session"] for one in moved] == [
        m["new_session_id"] for m in story.moves
    ]


def test_waiting_for_a_job_waits_for_its_chain(baton: Baton, story: Story):
    asked = wait(story.build, timeout=1)
    assert asked.state == "done"
    with pytest.raises(LookupError):
        wait(UUID(int=0), timeout=1)


def test_the_clean_up_of_each_period_is_done_once(baton: Baton):
    names = (
        *("mark_stale", "archive_transitions", "drop_branches", "prune_transcripts"),
        *("clear_jobs", "sweep", "census"),
    )

    def done() -> set[str]:
        return {
            row["name"] for row in baton.rows("select * from ticks where ended_at is not null")
        }

    wait_until(lambda: done() == set(names), timeout=15, description="a tick of each")


def test_a_worker_tends_the_repositories_of_its_host(baton: Baton, story: Story):
    lock = baton.root / "workspaces" / ".trees" / ".upkeep.lock"
    wait_until(lambda: lock.exists(), timeout=15, description="a worker has looked")
