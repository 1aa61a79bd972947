"""Every leg reads its parent's context from the provider's cache: tools and system prompt are the
same in all of them, byte for byte. The real CLI, and the stand-in's accounting."""

import json
from itertools import pairwise
from typing import Any

import pytest

from db.jobs import jobs
from dev.bench.legs import Chain, Leg
from dev.standin.model import Seen
from tests.dying import killed_after, recovered
from tests.hosts import Hosts
from tests.hosts import hosts as hosts
from tests.running import AtWork, P, U
from worker.agent import answers
from worker.client import Compaction, Update

BEFORE = 123_901  # of this chain with a list for each kind of leg: docs/cost.md


def prefix(seen: Seen) -> str:
    """What stands before the conversation, as the cache has it."""
    system: list[dict[str, Any]] = [
        part
        for part in seen.body["system"]
        if not part["text"].startswith("x-anthropic-billing-header")
    ]
    return json.dumps([seen.body["tools"], system])


def parts_read(legs: list[Leg]) -> dict[str, float]:
    """For each pair of legs how much of the first one's context the second found in the cache; of
    a compaction's, whose conversation is over, the tools and the system prompt."""
    return {
        f"{first.name}, {then.name}": then.read
        / (first.fixed if first.name == "compaction" else first.context)
        for first, then in pairwise(legs)
    }


def test_each_leg_reads_its_parents_context_from_the_cache_also_on_another_host(hosts: Hosts):
    at_work = hosts.at_work
    at_work.configure(BATON_COMPACT="always")
    chain = Chain(at_work.conn, lambda: at_work.model.requests, P)
    chain.build()
    chain.chat()
    hosts.on("two")
    chain.update()
    names = [leg.name for leg in chain.legs]
    one = ["build", "recommendations", "documentation", "compaction"]
    assert names == [*one, "chat_plan", *one]
    assert {k: v for k, v in parts_read(chain.legs).items() if v < 0.95} == {}
    assert len({prefix(seen) for leg in chain.legs for seen in leg.asked}) == 1
    assert sum(leg.weight for leg in chain.legs) <= 0.60 * BEFORE


@pytest.mark.long
def test_what_goes_on_after_a_death_or_begins_anew_has_the_same_prompt(at_work: AtWork):
    at_work.begin("write a.txt: a")
    prompt = "run: echo once\nrun: sleep 2\nsay it"
    asked = at_work.ask(Update(project=P, user=U, prompt=prompt))
    killed_after(at_work, asked, "once")
    assert at_work.run(asked).state == "done"
    assert recovered(at_work) == [("partial", "worker_died")]
    jobs.cancel(at_work.conn, asked)  # what follows in its chain
    for (session,) in at_work.rows("select session_id from project_ai_session_metrics"):
        at_work.lose(session)
    at_work.build("say again")
    requests = [seen for seen in at_work.model.requests if answers.NAME in seen.tools]
    assert requests[-1].history, "it began fresh, and was told of the past"
    assert {prefix(seen) for seen in requests} == {prefix(requests[-1])}
    assert len(requests) >= 4


@pytest.mark.agent("direct")
def test_the_projects_notes_are_told_once_and_again_when_they_have_changed(at_work: AtWork):
    at_work.place.mkdir(parents=True)
    (at_work.place / "CLAUDE.md").write_text("Always rhyme.")
    at_work.build("say one")
    at_work.chat("say two")
    (at_work.place / "CLAUDE.md").write_text("Always sing.")
    at_work.chat("say three")
    at_work.one(Compaction(project=P, user=U))
    at_work.chat("say four")
    told = [json.dumps(seen.body["messages"]) for seen in at_work.model.requests]
    turns = [told[0], told[1], told[2], told[-1]]
    assert [each.count("<project-notes>") for each in turns] == [1, 1, 2, 1]
    assert "Always sing." in turns[-1]
    assert [seen.prompt for seen in at_work.model.requests][:2] == ["say one", "say two"]
