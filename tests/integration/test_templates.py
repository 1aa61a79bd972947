"""A template is shared: what one project meets with it is not the others', nor is what they do."""

from typing import Any

import pytest

from db.operations import deletion, receipts
from db.transcripts import listings, transcripts
from db.transcripts.form import Entry
from dev.agents.scripted import scripted
from tests.integration.test_sub_agents import DELEGATES, ITS_PROMPT, told
from tests.integration.test_turns_settle import BROKEN, STRANGE, Failing, registered
from tests.invariants import violations
from tests.running import AtWork, P, U
from worker.client import Build, Update
from worker.failures.errors import AgentFailed, JobError

pytestmark = pytest.mark.agent("direct")

TEMPLATE = "shops"


def made(at_work: AtWork, prompt: str = "say I know how shops are built", **more: Any) -> str:
    """A template, and its session."""
    at_work.one(Build(project=TEMPLATE, user="_template", prompt=prompt), **more)
    return session_of(at_work, TEMPLATE)


def session_of(at_work: AtWork, project: str) -> str:
    return at_work.value(
        "select last_ai_session_id from projects where project_id = %s", project
    )


def began_fresh(at_work: AtWork) -> tuple[Any, ...]:
    return ("build", "template_lost", None, at_work.head(), None)


UNFIT: list[tuple[JobError, str]] = [
    (STRANGE, "something_new"),
    (AgentFailed("session_unknown", "The session is unknown to the agent."), "session_unknown"),
]


@pytest.mark.parametrize(("failure", "reason"), UNFIT)
def test_a_template_that_fails_for_one_project_is_left_by_that_one_only(
    at_work: AtWork, failure: JobError, reason: str
):
    template = made(at_work, agent=scripted())
    job = at_work.build("begin", agent=Failing(failure), template=TEMPLATE)
    assert (job.state, job.attempts) == ("done", 1)
    assert at_work.tries(job.id) == [
        (template, "failed", reason),
        (template, "rejected", reason),
        (None, "fresh", "template_lost"),
    ]
    assert at_work.moves()[-1] == began_fresh(at_work)
    assert registered(at_work, template) == (0, True)
    ask = Build(project="other", user="bob", prompt="begin", template=TEMPLATE)
    other = at_work.one(ask, agent=scripted())
    assert at_work.tries(other.id) == [(template, "resumed", "template")]
    assert violations(at_work.conn) == []


def test_a_failure_that_may_be_the_templates_is_tried_again_once(at_work: AtWork):
    template = made(at_work, agent=scripted())
    job = at_work.build("begin", agent=Failing(BROKEN), template=TEMPLATE)
    assert job.state == "queued"
    job = at_work.again(job.id, Failing(BROKEN))
    assert job.state == "done"
    assert at_work.moves()[-1] == began_fresh(at_work)
    assert registered(at_work, template) == (0, True)


def test_a_template_that_is_damaged_is_condemned_and_new_projects_begin_fresh(
    at_work: AtWork,
):
    template = made(at_work, agent=scripted())
    at_work.conn.execute(
        "delete from transcript_batches where id = (select min(id) from transcript_batches)"
    )
    job = at_work.build("begin", agent=scripted(), template=TEMPLATE)
    assert at_work.tries(job.id) == [
        (template, "rejected", "damaged"),
        (None, "fresh", "template_lost"),
    ]
    assert at_work.moves()[-1] == began_fresh(at_work)
    assert registered(at_work, template)[1] is False
    ask = Build(project="other", user=U, prompt="begin", template=TEMPLATE)
    other = at_work.one(ask, agent=scripted())
    assert at_work.tries(other.id) == [(None, "fresh", "template_lost")]


def test_a_template_whose_transcript_is_away_is_not_condemned(at_work: AtWork):
    template = made(at_work, agent=scripted())
    at_work.lose(template)
    job = at_work.build("begin", agent=scripted(), template=TEMPLATE)
    assert at_work.tries(job.id)[0] == (template, "rejected", "not_found")
    assert registered(at_work, template) == (0, True)


def sub_agents(at_work: AtWork, project: str) -> dict[str, list[Entry] | None]:
    session = session_of(at_work, project)
    return {
        one.subpath: transcripts.load(at_work.conn, project, session, subpath=one.subpath)
        for one in listings.listed(at_work.conn, project, session)
        if one.subpath
    }


def rows_of(at_work: AtWork, project: str) -> list[list[tuple[Any, ...]]]:
    """All that is stored of a project's transcripts."""
    return [
        at_work.rows(f"select * from {table} where project_id = %s order by 1, 2, 3", project)
        for table in ("transcript_entries", "transcript_batches", "transcript_sessions")
    ]


def deleted(at_work: AtWork, project: str) -> None:
    receipt = receipts.begin(at_work.conn, "project", project, host="here")
    deletion.take_project(at_work.conn, receipt.id, project, turns_here=[])


@pytest.mark.long
@pytest.mark.agent("cli")
def test_a_templates_sub_agent_is_gone_on_with_in_a_project_that_began_from_it(
    at_work: AtWork,
):
    made(at_work, DELEGATES)
    of_template = rows_of(at_work, TEMPLATE)
    ((path, before),) = sub_agents(at_work, TEMPLATE).items()
    assert before

    at_work.build("write a.txt: 1", template=TEMPLATE)
    assert at_work.model.requests[-1].prompts == (DELEGATES, "write a.txt: 1")
    assert sub_agents(at_work, P) == {path: before}

    deleted(at_work, TEMPLATE)
    prompt = told(path.removeprefix("subagents/agent-"), "say one more thing")
    assert at_work.one(Update(project=P, user=U, prompt=prompt)).state == "done"
    its = [seen.prompts for seen in at_work.model.requests if seen.prompts[0] == ITS_PROMPT]
    assert "say one more thing" in its[-1][-1]
    after = sub_agents(at_work, P)[path]
    assert after
    assert after[: len(before)] == before
    assert len(after) > len(before)
    assert rows_of(at_work, TEMPLATE) == [[], [], []] != of_template


@pytest.mark.agent("cli")
def test_a_templates_sub_agent_is_gone_on_with_in_the_first_turn_already(at_work: AtWork):
    made(at_work, DELEGATES)
    of_template = rows_of(at_work, TEMPLATE)
    (path,) = sub_agents(at_work, TEMPLATE)
    prompt = told(path.removeprefix("subagents/agent-"), "say one more thing")
    assert at_work.build(prompt, template=TEMPLATE).state == "done"
    its = [seen.prompts for seen in at_work.model.requests if seen.prompts[0] == ITS_PROMPT]
    assert "say one more thing" in its[-1][-1]
    assert len(sub_agents(at_work, P)) == 1
    assert rows_of(at_work, TEMPLATE) == of_template

    deleted(at_work, P)
    assert rows_of(at_work, TEMPLATE) == of_template
    other = at_work.one(Build(project="other", user="bob", prompt="say hi", template=TEMPLATE))
    assert other.state == "done"
    assert sub_agents(at_work, "other") == sub_agents(at_work, TEMPLATE)
    assert violations(at_work.conn) == []
