"""No project is pinned to a session that fails every time, whatever it fails with.

An agent that fails on every resumed session and works on fresh ones: each way of failing that
the tables know, and some that they do not.
"""

import time
from dataclasses import dataclass

import pytest

from db.jobs.jobs import Job
from dev.agents.scripted import scripted
from tests.integration.test_turns_settle import Failing, registered
from tests.running import AtWork, P, U
from worker.agent import Request, Turn, Watch
from worker.agent.store import JobStore
from worker.client import ChatPlan, Compaction, Metadata
from worker.failures.errors import AgentFailed, CaptureIncomplete, Stopped
from worker.failures.verdicts import AGENT, ELSEWHERE, Verdict

PARKED = {word for word, (_, resumed) in AGENT.items() if resumed is Verdict.PARK}
WAITING = {word for word, (_, resumed) in AGENT.items() if resumed is Verdict.WAIT}
UNKNOWN: list[Exception] = [
    AgentFailed("something_new", "What a new CLI says."),
    AgentFailed("unknown", "x", status=418),
    CaptureIncomplete("The new session does not load: broken_chain."),
    Stopped("idle_timeout"),
    Stopped("turn_timeout"),
    Stopped("something_new"),
    KeyError("a fault of ours that only this session shows"),
    RuntimeError("x"),
]


@dataclass
class Told:
    state: str
    error_class: str | None
    moves: list[tuple[str, str | None]]


def asked_until_it_ends(at_work: AtWork, failure: Exception) -> Told:
    """Ask for a turn that fails wherever the project's session is resumed."""
    agent, moves = Failing(failure), len(at_work.moves())
    job = at_work.one(ChatPlan(project=P, user=U, prompt="go on"), agent)
    while job.state == "queued" and job.attempts:
        job = at_work.again(job.id, agent)
    moved = [(source, reason) for source, reason, *_ in at_work.moves()[moves:]]
    return Told(job.state, job.error_class, moved)


def test_whatever_a_resumed_session_fails_with_a_fresh_one_is_tried(at_work: AtWork):
    at_work.configure(BATON_ATTEMPTS="1")
    at_work.chat("begin", agent=scripted())
    curable = [AgentFailed(w, "x") for w in sorted(AGENT.keys() - ELSEWHERE - PARKED - WAITING)]
    stuck = dict[str, Told]()
    for failure in (*curable, *UNKNOWN):
        told = asked_until_it_ends(at_work, failure)
        match told:
            case Told("done", None, [("fallback", str(reason))]) if reason:
                continue
            case _:
                stuck[repr(failure)] = told
    assert stuck == {}


def test_where_the_cause_is_known_to_lie_elsewhere_the_head_stays(at_work: AtWork):
    at_work.configure(BATON_ATTEMPTS="1")
    at_work.chat("begin", agent=scripted())
    for word in sorted((AGENT.keys() & ELSEWHERE) - WAITING):
        told = asked_until_it_ends(at_work, AgentFailed(word, "x"))
        assert told == Told("failed", word, [])


def test_a_limit_of_time_is_over_when_the_fresh_turn_begins(at_work: AtWork):
    at_work.configure(BATON_ATTEMPTS="1", BATON_TURN_TIMEOUT="0.3")
    at_work.build("begin", agent=scripted())
    head = at_work.head()

    def slow_on(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        if request.resume is None:
            return scripted()(request, store=store, watch=watch)
        end = time.monotonic() + 20
        while not (reason := watch.stopped()) and time.monotonic() < end:
            time.sleep(0.02)
        raise Stopped(reason or "nobody stopped it")

    job = at_work.build("go on", agent=slow_on)
    assert job.state == "done"
    assert at_work.moves()[-1][:3] == ("fallback", "turn_timeout", head)
    assert registered(at_work, head) == (0, True), "a limit says nothing of the session"


def test_metadata_that_a_session_never_gives_is_asked_of_a_fresh_one(at_work: AtWork):
    """The turn itself ends well: what it was asked for is not in it."""
    at_work.configure(BATON_ATTEMPTS="2")
    at_work.build("begin", agent=scripted())
    said = '{"summary": "s", "recommendations": []}'

    def vague_when_resumed(request: Request, *, store: JobStore, watch: Watch) -> Turn:
        says = said if request.resume is None else ""
        return scripted(says=says)(request, store=store, watch=watch)

    def asked() -> Job:
        job = at_work.one(Metadata(project=P, user=U), vague_when_resumed)
        return at_work.again(job.id, vague_when_resumed) if job.state == "queued" else job

    job = asked()
    assert (job.state, job.error) == ("done", None)
    reasons = [reason for source, reason, *_ in at_work.moves() if source == "fallback"]
    assert reasons == ["structured_output_retry_exhausted", "not_whole"]


@pytest.mark.parametrize("word", ["killed", "compaction_failed", "start_failed"])
def test_a_compaction_that_fails_for_good_fails_and_the_head_stays(at_work: AtWork, word: str):
    at_work.configure(BATON_ATTEMPTS="2")
    at_work.build("begin", agent=scripted())
    head = at_work.head()
    agent = Failing(AgentFailed(word, "x"))
    job = at_work.one(Compaction(project=P, user=U), agent)
    while job.state == "queued":
        job = at_work.again(job.id, agent)
    assert (job.state, job.error_class) == ("failed", word)
    assert at_work.head() == head
