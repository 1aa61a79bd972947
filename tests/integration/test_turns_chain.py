"""Builds, updates, metadata, compaction and chat: one session after the other."""

from typing import Any

import pytest

from db.jobs import jobs
from tests.running import AtWork, P, U
from worker.client import Build, Compaction, Update


def stored(at_work: AtWork, session: str | None) -> list[tuple[Any, ...]]:
    return at_work.rows(
        """
        select b.id, b.starts, b.runs, b.overlay, s.entries, s.last_digest
          from transcript_batches b join transcript_sessions s using (project_id, session_id)
         where session_id = %s order by b.id
        """,
        session,
    )


def test_the_first_build_begins_fresh_and_becomes_the_head(at_work: AtWork):
    job = at_work.build("write index.html: <h1>Hello</h1>")
    assert (job.state, job.result and job.result["files_created"]) == ("done", ["index.html"])
    (turn,) = at_work.turns(job.id)
    assert turn["relation"] == "fresh"
    assert at_work.head() == turn["minted_session_id"] == turn["observed_session_id"]
    assert at_work.tries(job.id) == [(None, "fresh", "first")]
    assert at_work.model.requests[-1].history == ""  # a first session is told of no past


def test_an_update_resumes_and_the_model_sees_what_was_said_before(at_work: AtWork):
    at_work.build("write index.html: one")
    first = at_work.head()
    before = stored(at_work, first)
    job = at_work.build("write about.html: two")
    (turn,) = at_work.turns(job.id)
    assert at_work.model.requests[-1].prompts == (
        "write index.html: one",
        "write about.html: two",
    )
    assert (turn["relation"], turn["parent_session_id"]) == ("forked", first)
    assert at_work.head() == turn["observed_session_id"] != first
    assert at_work.tries(job.id) == [(first, "resumed", None)]
    assert before
    assert stored(at_work, first) == before  # the parent stays as it was, row for row
    assert at_work.value(
        "select ai_session_id from project_versions order by id desc limit 1"
    ) == (at_work.head())


@pytest.mark.agent("direct")
def test_every_operation_of_a_chain_goes_on_from_the_one_before(at_work: AtWork):
    at_work.configure(BATON_COMPACT="always")
    first = at_work.chain(Build(project=P, user=U, prompt="write a.txt: 1"))
    assert [(job.kind, job.state) for job in first] == [
        ("build", "done"),
        ("metadata", "done"),
        ("compaction", "done"),
    ]
    second = at_work.one(Update(project=P, user=U, prompt="write b.txt: 2"))
    moves = at_work.moves()
    assert [move[0] for move in moves] == ["build", "metadata", "metadata", "compact", "update"]
    assert [old for _, _, old, _, _ in moves] == [
        None,
        *(new for _, _, _, new, _ in moves[:-1]),
    ]
    assert [parent for *_, parent in moves] == [old for _, _, old, _, _ in moves]
    assert len({new for _, _, _, new, _ in moves}) == 5
    handed = [job.previous_session_id for job in first]
    assert handed == [None, moves[0][3], moves[2][3]]
    assert second.state == "done"
    assert "write a.txt: 1" in at_work.model.requests[-1].prompts
    assert (
        at_work.value("select sync_status from session_sync where project_id = %s", P)
        == "SYNCED"
    )
    sessions = [new for _, _, _, new, _ in moves]
    found = at_work.rows(
        "select version_id, new_session_id from session_transitions order by id"
    )
    assert found[:4] == [(str(first[0].id), session) for session in sessions[:4]]


def test_what_is_paid_is_the_difference_and_sums_to_what_the_model_charged(at_work: AtWork):
    at_work.configure(BATON_COMPACT="always")
    at_work.chain(Build(project=P, user=U, prompt="write a.txt: 1"))
    at_work.model.fault("500", after=1)
    failed = at_work.build("write b.txt: 2\nrun: true")
    assert failed.error_class == "server_error"
    at_work.again(failed.id)
    paid = at_work.value("select sum(cost_usd) from turns")
    charged = sum(price(seen.usage) for seen in at_work.model.requests if seen.usage)
    assert float(paid) == pytest.approx(charged, abs=1e-6)
    assert at_work.value("select bool_or(cost_estimated) from turns") is False


def price(usage: dict[str, Any]) -> float:
    """What the CLI reckons for its default model, in USD."""
    hour = usage["cache_creation"]["ephemeral_1h_input_tokens"]
    minutes = usage["cache_creation"]["ephemeral_5m_input_tokens"]
    return (
        4 * usage["input_tokens"]
        + 20 * usage["output_tokens"]
        + 0.2 * usage["cache_read_input_tokens"]
        + 5 * minutes
        + 8 * hour
    ) / 1e6


@pytest.mark.agent("direct")
@pytest.mark.parametrize(
    ("policy", "skipped"), [("auto", "below_threshold"), ("never", "policy_never")]
)
def test_a_compaction_that_policy_spares_says_so(at_work: AtWork, policy: str, skipped: str):
    at_work.configure(BATON_COMPACT=policy)
    *_, job = at_work.chain(Build(project=P, user=U, prompt="write a.txt: 1"))
    assert (job.kind, job.state, job.result) == ("compaction", "done", {"skipped": skipped})
    assert at_work.moves()[-1][0] == "metadata"


def test_a_compaction_that_is_asked_for_is_done_whatever_the_policy(at_work: AtWork):
    at_work.configure(BATON_COMPACT="never")
    at_work.build("write a.txt: 1")
    before = at_work.head()
    job = at_work.one(Compaction(project=P, user=U))
    assert job.state == "done"
    assert job.result
    assert 0 < job.result["post_tokens"] < job.result["pre_tokens"]
    assert at_work.moves()[-1] == ("compact", None, before, at_work.head(), before)
    at_work.build("write b.txt: 2")
    assert at_work.model.requests[-1].prompts == ("write a.txt: 1", "write b.txt: 2")
    assert (
        at_work.value(
            "select count(*) from project_ai_session_metrics where summary is not null"
        )
        == 1
    )


def test_a_compaction_that_fails_leaves_the_head_and_says_so(at_work: AtWork):
    at_work.begin("write a.txt: 1")
    before = at_work.head()
    at_work.model.fault("500", times=-1, on="compaction")
    job = at_work.one(Compaction(project=P, user=U))
    assert (job.state, job.error_class) == ("queued", "server_error")
    assert at_work.head() == before
    (turn,) = at_work.turns(job.id)
    assert (turn["outcome"], turn["error_class"]) == ("failed", "server_error")
    at_work.model.clear_faults()
    jobs.cancel(at_work.conn, job.id)
    at_work.build("write b.txt: 2")
    assert at_work.model.requests[-1].prompts == ("write a.txt: 1", "write b.txt: 2")


@pytest.mark.agent("direct")
def test_a_question_is_answered_from_the_head_and_moves_it_on(at_work: AtWork):
    at_work.build("write a.txt: 1")
    before = at_work.head()
    job = at_work.chat("What did we do?")
    assert job.result
    assert "write a.txt: 1" in job.result["text"]
    assert at_work.moves()[-1] == ("chat_plan", None, before, at_work.head(), before)
    said = at_work.rows(
        "select role, content, ai_session_id from project_chat_log_minimal order by created_at"
    )
    assert said[-2:] == [
        ("user", "What did we do?", at_work.head()),
        ("assistant", job.result["text"], at_work.head()),
    ]
    assert at_work.rows("select session_id, user_id from chat_plan_sessions") == [
        (at_work.head(), U)
    ]


def test_a_question_changes_no_file_whatever_the_model_tries(at_work: AtWork):
    at_work.begin("write a.txt: 1")
    at_work.chat(
        "write b.txt: 2\nedit a.txt: 1 => 2\nrun: touch c.txt\nrun: echo x > d.txt\nsay tried"
    )
    found = sorted(path.name for path in at_work.place.iterdir() if path.is_file())
    assert found == ["a.txt"]
    assert (at_work.place / "a.txt").read_text() == "1"


@pytest.mark.agent("direct")
def test_what_the_chain_has_reached_stands_in_redis_with_the_builds_files(
    at_work: AtWork, redis_url: str
):
    import json

    import redis

    (job, *_) = at_work.chain(Build(project=P, user=U, prompt="write a.txt: 1"))
    with redis.Redis.from_url(f"{redis_url.rpartition('/')[0]}/1") as client:
        found: Any = client.get(f"claude:session:{job.id}")
        assert 0 < int(str(client.ttl(f"claude:session:{job.id}"))) <= 3600
    assert json.loads(found) == {
        "sessionId": at_work.head(),
        "buildId": str(job.id),
        "projectPath": str(at_work.place),
        "filesCreated": ["a.txt"],
    }
