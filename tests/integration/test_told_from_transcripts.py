"""Whatever session Postgres holds, however it came in: a fallback from it is told of it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from db.sessions import imports, registry
from db.sessions.imports import Figures
from dev.agents.scripted import scripted
from tests import ledger
from tests.integration.test_templates import TEMPLATE, made
from tests.integration.test_turns_settle import STRANGE, Failing
from tests.running import AtWork, P, U
from worker.agent.store import summarise
from worker.client import Build, Update
from worker.session import digest
from worker.session.conversation import said, spoken

Entry = dict[str, Any]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def recorded(*said: str) -> list[Entry]:
    """Entries of a session as the CLI writes them: prompts and answers in turn."""
    entries, last = list[Entry](), None
    for n, text in enumerate(said):
        role = "assistant" if n % 2 else "user"
        entry: Entry = {"type": role, "uuid": str(uuid4()), "parentUuid": last}
        entry["timestamp"] = (BEGAN + timedelta(seconds=n)).isoformat()
        entry["message"] = {"role": role, "content": [{"type": "text", "text": text}]}
        entries.append(entry)
        last = entry["uuid"]
    return entries


def imported(at_work: AtWork, *said: str, head: bool = True) -> str:
    session = str(uuid4())
    figures = Figures(
        session_id=session,
        began_at=BEGAN,
        context_tokens=100,
        raw_cost_usd=0.0,
        turns=1,
        model=None,
        cli_version=None,
        summary=None,
    )
    entries = [{**entry, "sessionId": session} for entry in recorded(*said)]
    imports.add_session(
        at_work.conn,
        P,
        figures,
        {"": entries},
        user_id=U,
        head=head,
        fold=summarise(session),
    )
    return session


def told(at_work: AtWork, *, user: str = U, **options: Any) -> str:
    """What a fresh session would be told."""
    job = ledger.begun(at_work.conn, "update", project=P, user_id=user, options=options)
    text = digest.retell(job, at_work.place, "go on")
    ledger.finish(at_work.conn, job, "cancelled")
    return text


@pytest.mark.agent("direct")
def test_a_fallback_from_an_imported_session_is_told_what_was_said_in_it(at_work: AtWork):
    session = imported(at_work, "build me a shop", "A shop with a till.")
    at_work.age(session, 48)
    job = at_work.one(Update(project=P, user=U, prompt="say and now?"))
    assert job.state == "done"
    assert at_work.moves()[-1][:2] == ("fallback", "stale")
    history = at_work.model.requests[-1].history
    assert "user: build me a shop\n[19 characters] assistant: A shop with a till." in history


def test_so_is_one_from_a_session_that_went_on_from_it_and_nothing_is_told_twice(
    at_work: AtWork,
):
    session = imported(at_work, "build me a shop", "A shop with a till.")
    at_work.build("paint it red", agent=scripted(says="It is red."))
    at_work.lose(session)  # a former head is pruned: its words are in the one that followed
    text = told(at_work)
    words = ["build me a shop", "A shop with a till.", "paint it red", "It is red."]
    assert [text.count(each) for each in words] == [1, 1, 1, 1]
    assert sorted(words, key=text.index) == words


def test_one_on_a_branch_from_a_session_that_was_imported_beside(at_work: AtWork):
    at_work.build("begin", agent=scripted())
    beside = imported(at_work, "another shop", "In blue.", head=False)
    assert "another shop" not in told(at_work)
    text = told(at_work, branch_from=beside)
    assert "user: another shop\n[8 characters] assistant: In blue." in text


def test_nothing_that_another_user_said_is_told_from_transcripts_either(at_work: AtWork):
    imported(at_work, "a secret of ann's", "I keep it.")
    at_work.conn.execute("update projects set user_id = 'bob'")
    assert "secret" not in told(at_work, user="bob")


@pytest.mark.agent("direct")
def test_one_from_a_session_that_began_from_a_template_is_told_of_that(at_work: AtWork):
    made(at_work, "say I know how shops are built")
    at_work.build("say a shop", template=TEMPLATE)
    at_work.conn.execute("update project_ai_session_metrics set is_resumable = false")
    job = at_work.one(Update(project=P, user=U, prompt="say and now?"))
    assert at_work.moves()[-1][:2] == ("fallback", "not_resumable"), job.error
    history = at_work.model.requests[-1].history
    assert "say I know how shops are built" in history
    assert history.index("I know how shops") < history.index("user: say a shop")


def test_one_that_begins_fresh_since_the_template_fails_is_told_of_it(at_work: AtWork):
    made(at_work, agent=scripted(says="Shops have tills."))
    seen = list[str]()

    def noting(request: Any, **more: Any) -> Any:
        seen.append(request.prompt)
        return Failing(STRANGE)(request, **more)

    job = at_work.one(Build(project=P, user=U, prompt="a shop", template=TEMPLATE), noting)
    assert job.state == "done"
    assert at_work.moves()[-1][:2] == ("build", "template_lost")
    assert "Shops have tills." in seen[-1]
    assert seen[-1].endswith("a shop")


def test_a_project_of_somebodys_is_no_template_however_it_is_called(at_work: AtWork):
    at_work.build("a secret", agent=scripted())
    assert registry.template(at_work.conn, P, whole=False) is None


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "user", "message": None},
        {"type": "user", "message": {"content": None}},
        {"type": "assistant", "message": {"content": [None, "x", {"text": 5}, {}]}},
        {"type": "user", "isMeta": True, "message": {"content": "of the CLI"}},
        {"type": "user", "isCompactSummary": True, "message": {"content": "a summary"}},
        {"type": "user", "isSidechain": True, "message": {"content": "of a sub-agent"}},
        {"type": "assistant", "message": {"model": "<synthetic>", "content": "an error"}},
        {"type": "user", "message": {"content": "<system-reminder>\nx\n</system-reminder>"}},
        {"type": "user", "message": {"content": "<command-name>/compact</command-name>"}},
        {"type": "user", "message": {"content": [{"type": "tool_result", "content": "x"}]}},
    ],
)
def test_what_is_nobodys_word_is_not_told(entry: Entry):
    assert said([entry]) == []


def test_of_the_agent_its_last_word_before_the_next_prompt_is_told():
    told = said(recorded("do it", "I look.", "<project-history>\nx\n</project-history>\nand?"))
    told += said([*recorded("a", "first"), *recorded("b", "c")[1:]])
    assert [one.text for one in told] == ["do it", "I look.", "and?", "a", "c"]
    assert spoken(recorded("x")[0]) == "x"
    assert told[1].at == told[0].at + 1
