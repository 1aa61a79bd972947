"""What becomes of a compaction that the model's API refuses, on the real CLI.

It has no field for why: what it says in words has to come to the same as the fields of an
ordinary turn do (tests/contracts/test_error_table.py has those).
"""

from typing import Any

import pytest

from db.jobs.jobs import Job
from tests.running import AtWork, P, U
from worker.agent import compacting
from worker.client import Build, Compaction
from worker.failures.vocabulary import class_of

LIMIT = "CLAUDE_CODE_BLOCKING_LIMIT_OVERRIDE"  # of the CLI: tokens that it sends at the most


def compacted(at_work: AtWork) -> Job:
    return at_work.one(Compaction(project=P, user=U))


REFUSED = [
    ("529", "queued", "overloaded"),
    ("401", "parked", "authentication_failed"),
    ("400", "failed", "request_refused"),
    ("too_long", "failed", "prompt_too_long"),
]
ALIKE = [
    ("cut", "queued", "unreachable"),
    ("credit", "parked", "billing_error"),
    ("429", "parked", "rate_limit"),
    ("500", "queued", "server_error"),
    ("reset", "queued", "unreachable"),
    ("unfinished", "queued", "malformed_response"),
    ("garbage", "queued", "malformed_response"),
    ("403", "parked", "authentication_failed"),
    ("404", "failed", "model_not_found"),
]


@pytest.mark.parametrize(
    ("fault", "state", "error_class"),
    [*REFUSED, *(pytest.param(*row, marks=pytest.mark.long) for row in ALIKE)],
)
def test_a_compaction_that_meets(at_work: AtWork, fault: str, state: str, error_class: str):
    more: dict[str, Any] = {"retry": False} if fault == "429" else {}
    at_work.begin("write a.txt: 1")
    head = at_work.head()
    at_work.model.fault(fault, times=-1, on="compaction", **more)
    job = compacted(at_work)
    assert (job.state, job.error_class) == (state, error_class)
    assert job.attempts == (0 if state == "parked" else 1)
    assert at_work.head() == head
    (turn,) = at_work.turns(job.id)
    assert (turn["outcome"], turn["error_class"]) == ("failed", error_class)
    registered = at_work.rows(
        "select resume_failure_count, is_resumable from project_ai_session_metrics"
    )
    assert registered == [(0, True)]


@pytest.mark.long
def test_a_compaction_goes_through_when_the_api_is_back(at_work: AtWork):
    at_work.build("write a.txt: 1")
    at_work.model.fault("529", times=1, on="compaction")
    job = compacted(at_work)
    assert (job.state, job.error_class) == ("queued", "overloaded")
    job = at_work.again(job.id)
    assert (job.state, job.result and job.result["post_tokens"] > 0) == ("done", True)


def test_what_is_too_short_to_be_compacted_is_no_failure(at_work: AtWork):
    at_work.build("say ok")
    assert compacted(at_work).result != {"skipped": "not_compacted"}
    job = compacted(at_work)
    assert (job.state, job.result) == ("done", {"skipped": "not_compacted"})


@pytest.mark.parametrize(
    ("fault", "state", "error_class"),
    [("529", "queued", "overloaded"), ("401", "parked", "authentication_failed")],
)
@pytest.mark.parametrize("says", [pytest.param("the API", marks=pytest.mark.long), "the CLI"])
def test_a_conversation_near_the_window_that_cannot_be_compacted_now_waits(
    at_work: AtWork, fault: str, state: str, error_class: str, says: str
):
    at_work.begin("say one\n" + "lorem " * 20_000)
    head = at_work.head()
    if says == "the CLI":
        at_work.configure(**{LIMIT: "20000"})
    else:
        at_work.model.fault("too_long", times=-1, when="two", on="turn")
    at_work.model.fault(fault, times=-1, on="compaction")
    job = at_work.build("say two")
    assert (job.state, job.error_class) == (state, error_class)
    assert [turn["parent_session_id"] for turn in at_work.turns(job.id)] == [head, head]
    assert at_work.head() == head

    at_work.model.clear_faults()
    at_work.conn.execute("delete from limits")
    at_work.conn.execute(
        "update jobs set state = 'queued', credential = null where id = %s", (job.id,)
    )
    assert at_work.again(job.id).state == "done"
    assert at_work.model.requests[-1].prompts[-1] == "say two"


def test_what_cannot_be_compacted_at_all_begins_fresh_with_the_past_told(at_work: AtWork):
    at_work.begin("say one\n" + "lorem " * 20_000)
    head = at_work.head()
    at_work.configure(**{LIMIT: "20000"})
    at_work.model.fault("400", times=-1, on="compaction")
    job = at_work.build("say two")
    assert (job.state, job.error) == ("done", None)
    assert [turn["parent_session_id"] for turn in at_work.turns(job.id)] == [head, head, None]
    assert at_work.moves()[-1][:3] == ("fallback", "blocking_limit", head)
    assert "say one" in at_work.model.requests[-1].history


def test_a_prompt_that_alone_is_too_long_is_refused_in_its_own_words(at_work: AtWork):
    at_work.configure(**{LIMIT: "20000"})
    job = at_work.one(Build(project=P, user=U, prompt="say one\n" + "lorem " * 25_000))
    assert (job.state, job.error_class) == ("failed", "blocking_limit")
    assert "shorten it" in (job.error or "")


def test_an_error_in_no_words_that_are_known_is_one_of_its_own():
    failed = compacting.failure("Error during compaction: the moon is full")
    assert failed
    assert class_of(failed.kind, status=failed.status) == "compaction_failed"
    assert compacting.outage("the moon is full") is None
    assert compacting.outage("too_few_groups") is None
