"""Sub-agents go with their session: into its forks, through pruning, and on with their work."""

import json

from db.transcripts import listings, transcripts
from db.transcripts.form import Entry
from tests.running import AtWork, P

ITS_PROMPT = "write sub.txt: from the sub-agent"
DELEGATES = "use Agent " + json.dumps(
    {
        "description": "a note",
        "prompt": ITS_PROMPT,
        "subagent_type": "general-purpose",
    }
)


def sub_agents(at_work: AtWork, session: str | None) -> dict[str, list[Entry]]:
    """The transcripts of a session's sub-agents, by subpath."""
    assert session
    stored = listings.listed(at_work.conn, P, session)
    return {
        one.subpath: transcripts.load(at_work.conn, P, session, subpath=one.subpath) or []
        for one in stored
        if one.subpath
    }


def told(agent: str, message: str) -> str:
    """A prompt that has the agent go on with a sub-agent."""
    given = {"to": agent, "summary": "one more thing", "message": message}
    offered = json.dumps({"query": "select:SendMessage"})
    return f"use ToolSearch {offered}\nuse SendMessage {json.dumps(given)}\nsay done"


def test_a_fork_has_its_parents_sub_agents_and_keeps_them_when_that_is_pruned(
    at_work: AtWork,
):
    at_work.build(DELEGATES)
    parent = at_work.head()
    before = sub_agents(at_work, parent)
    assert len(before) == 1
    assert (at_work.place / "sub.txt").read_text() == "from the sub-agent"

    at_work.build("write a.txt: 1")
    child = at_work.head()
    assert child != parent
    assert sub_agents(at_work, child) == before == sub_agents(at_work, parent)

    with at_work.conn.transaction():
        listings.delete(at_work.conn, P, str(parent))
        listings.sweep_entries(at_work.conn, P)
    assert at_work.tries(at_work.build("write b.txt: 2").id) == [(child, "resumed", None)]
    assert sub_agents(at_work, at_work.head()) == before


def test_a_sub_agent_is_gone_on_with_in_a_fork_of_a_fork(at_work: AtWork):
    at_work.build(DELEGATES)
    at_work.build("write a.txt: 1")
    ((path, before),) = sub_agents(at_work, at_work.head()).items()

    at_work.build(told(path.removeprefix("subagents/agent-"), "read sub.txt"))

    its = [seen.prompts for seen in at_work.model.requests if seen.prompts[0] == ITS_PROMPT]
    assert "read sub.txt" in its[-1][-1]
    ((_, after),) = sub_agents(at_work, at_work.head()).items()
    assert after[: len(before)] == before  # what is new stands behind what was carried over
    assert len(after) > len(before)
