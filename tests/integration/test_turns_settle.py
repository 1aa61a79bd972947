"""What an attempt settles by itself, and what counts against a session."""

from typing import Any

import pytest

from dev.agents.scripted import scripted
from tests.running import AtWork
from worker.agent import Request, Turn, Watch
from worker.agent.store import JobStore
from worker.failures.errors import AgentFailed, judge

BROKEN = AgentFailed("malformed_response", "The stream broke off.")
STRANGE = AgentFailed("something_new", "What a new CLI says.")
OVERLOADED = AgentFailed("server_error", "Overloaded", status=529)
AWAY = AgentFailed("unreachable", "Connection refused")


class Failing:
    """An agent whose turns fail while they resume a session; fresh ones are well."""

    def __init__(self, failure: Exception, *, fresh_too: bool = False) -> None:
        self.failure, self.fresh_too = failure, fresh_too

    def __call__(self, request: Request, *, store: JobStore, watch: Watch) -> Turn:
        if request.resume or self.fresh_too:
            raise self.failure
        return scripted()(request, store=store, watch=watch)


def registered(at_work: AtWork, session: str | None) -> tuple[Any, ...]:
    (found,) = at_work.rows(
        """
        select resume_failure_count, is_resumable from project_ai_session_metrics
         where session_id = %s
        """,
        session,
    )
    return found


def test_a_conversation_that_is_too_long_is_compacted_and_the_turn_tried_again(
    at_work: AtWork,
):
    at_work.build("write a.txt: 1")
    before = at_work.head()
    at_work.model.fault("too_long", on="turn")  # the CLI itself then compacts, in vain
    at_work.model.fault("500", on="compaction")
    job = at_work.build("write b.txt: 2")
    assert (job.state, job.error) == ("done", None)
    assert [(t["step"].partition(":")[0], t["outcome"]) for t in at_work.turns(job.id)] == [
        ("build", "failed"),
        ("compact", "committed"),
        ("build", "committed"),
    ]
    (_, compact, update) = at_work.moves()
    assert compact[:3] == ("compact", "prompt_too_long", before)
    assert update == ("update", None, compact[3], at_work.head(), compact[3])
    assert at_work.model.requests[-1].prompts == ("write a.txt: 1", "write b.txt: 2")


def test_what_cannot_be_compacted_begins_fresh_once_and_then_fails(at_work: AtWork):
    at_work.begin("write a.txt: 1")
    before = at_work.head()
    at_work.model.fault("too_long", times=-1)
    job = at_work.build("write b.txt: 2")
    assert (job.state, job.error_class, job.attempts) == ("failed", "prompt_too_long", 1)
    parents = [turn["parent_session_id"] for turn in at_work.turns(job.id)]
    assert parents == [before, before, None]  # the turn, its compaction, the fresh session
    assert at_work.head() == before
    assert len(at_work.events("session.resume_failed")) == 1


@pytest.mark.agent("direct")
@pytest.mark.parametrize("status", ["400", "413"])
def test_a_refused_request_is_sent_once_more_in_a_fresh_session(at_work: AtWork, status: str):
    at_work.begin("write a.txt: 1")
    before = at_work.head()
    at_work.model.fault(status, times=-1, when="b.txt")
    asked = at_work.build("write b.txt: 2")
    assert asked.state == "failed"
    assert [turn["parent_session_id"] for turn in at_work.turns(asked.id)] == [before, None]
    assert at_work.head() == before


def test_an_unknown_failure_counts_at_once_and_the_second_ends_the_session(at_work: AtWork):
    at_work.build("begin", agent=scripted())
    older = at_work.head()
    at_work.build("more", agent=scripted())
    head = at_work.head()
    job = at_work.build("go on", agent=Failing(STRANGE))
    assert (job.state, job.error_class) == ("queued", "something_new")
    assert registered(at_work, head) == (1, True)
    job = at_work.again(job.id, Failing(STRANGE))
    assert registered(at_work, head) == (2, False)
    assert registered(at_work, older) == (1, True)  # the next candidate, in the same attempt
    assert at_work.head() == head


def test_the_last_attempt_goes_without_the_session_that_may_be_to_blame(at_work: AtWork):
    at_work.configure(BATON_ATTEMPTS="1")
    at_work.build("begin", agent=scripted())
    head = at_work.head()
    job = at_work.build("go on", agent=Failing(STRANGE))
    assert job.state == "done"
    assert at_work.moves()[-1] == ("fallback", "something_new", head, at_work.head(), None)


def test_on_a_fresh_session_an_unknown_failure_is_final(at_work: AtWork):
    job = at_work.build("begin", agent=Failing(STRANGE, fresh_too=True))
    assert (job.state, job.error_class, job.attempts) == ("failed", "something_new", 1)


def test_a_failure_that_may_be_the_sessions_counts_from_the_second_on(at_work: AtWork):
    at_work.build("begin", agent=scripted())
    head = at_work.head()
    job = at_work.build("go on", agent=Failing(BROKEN))
    assert registered(at_work, head) == (0, True)
    at_work.again(job.id, Failing(BROKEN))
    assert registered(at_work, head) == (1, True)
    job = at_work.again(job.id, Failing(BROKEN))
    assert registered(at_work, head) == (2, False)
    assert job.state == "done"  # fresh, in the same attempt
    assert at_work.moves()[-1][:2] == ("fallback", "malformed_response")


@pytest.mark.parametrize("outage", [OVERLOADED, AWAY])
def test_an_outage_of_the_api_says_nothing_of_a_session(at_work: AtWork, outage: AgentFailed):
    at_work.build("begin", agent=scripted())
    head = at_work.head()
    job = at_work.build("go on", agent=Failing(outage))
    for _ in range(3):
        job = at_work.again(job.id, Failing(outage))
    assert (job.state, job.attempts) == ("queued", 4)
    assert registered(at_work, head) == (0, True)
    job = at_work.again(job.id, Failing(outage))  # the last: no job fails for a session alone
    assert (job.state, job.attempts) == ("done", 5)
    assert at_work.moves()[-1][:3] == (
        "fallback",
        judge(outage, resumed=True).error_class,
        head,
    )
    assert registered(at_work, head) == (0, True)


def test_an_outage_that_lasts_fails_the_job_and_keeps_the_head(at_work: AtWork):
    at_work.configure(BATON_ATTEMPTS="2")
    at_work.build("begin", agent=scripted())
    head = at_work.head()
    job = at_work.build("go on", agent=Failing(OVERLOADED, fresh_too=True))
    job = at_work.again(job.id, Failing(OVERLOADED, fresh_too=True))
    assert (job.state, job.error_class) == ("failed", "overloaded")
    assert at_work.head() == head


def test_an_answer_of_the_wrong_form_is_asked_for_twice_whatever_failed_before(
    at_work: AtWork,
):
    wrong = AgentFailed("x", "x", ending="structured_output_retry_exhausted")
    at_work.build("begin", agent=scripted())
    head = at_work.head()
    job = at_work.build("go on", agent=Failing(OVERLOADED))
    for _ in range(2):
        job = at_work.again(job.id, Failing(OVERLOADED))
    job = at_work.again(job.id, Failing(wrong, fresh_too=True))
    assert job.state == "queued"
    job = at_work.again(job.id, Failing(wrong, fresh_too=True))
    assert [turn["parent_session_id"] for turn in at_work.turns(job.id)][-2:] == [head, None]
    assert (job.state, job.error_class) == ("failed", "structured_output_retry_exhausted")
