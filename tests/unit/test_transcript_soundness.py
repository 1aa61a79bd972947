"""Which transcripts can be resumed with their context, by shapes the CLI writes."""

import json
from typing import Any

import pytest

from db.transcripts.form import body, overlay, restore, runs_of, since_gap, soundness

Entry = dict[str, Any]


def row(uuid: str, parent: str | None, kind: str = "user", **more: Any) -> Entry:
    return {"type": kind, "uuid": uuid, "parentUuid": parent, "isSidechain": False, **more}


TURN = [
    {"type": "queue-operation"},
    row("ask", None),
    row("model", "ask", "attachment"),
    row("text", "model", "assistant"),
    row("call 1", "text", "assistant"),
    row("call 2", "call 1", "assistant"),  # tools in parallel: results fan out
    row("result 1", "call 1"),
    row("result 2", "call 2"),
    row("answer", "result 2", "assistant"),
    {"type": "cost-state"},
]
COMPACTED = [
    *TURN,
    row("boundary", None, "system", subtype="compact_boundary", logicalParentUuid="answer"),
    row("summary", "boundary", isCompactSummary=True),
    row("command", "answer", isMeta=True),  # goes on from what was kept of the past
    row("output", "command"),
    row("listing", "output", "attachment"),
]
FORK_OF_COMPACTED = [
    {"type": "mode"},
    row("boundary", None, "system", subtype="compact_boundary", logicalParentUuid="answer"),
    row("summary", "boundary", isCompactSummary=True),
    row("answer", "summary", "assistant"),  # linked anew: what it answered is gone
    row("command", "answer", isMeta=True),
    row("next", "command"),
]
UNKNOWN_PAST = [
    row("boundary", None, "system", logicalParentUuid="not copied"),
    row("summary", "boundary", isCompactSummary=True),
]


@pytest.mark.parametrize(
    "entries", [TURN, TURN[:-4], COMPACTED, FORK_OF_COMPACTED, UNKNOWN_PAST]
)
def test_a_healthy_transcript_is_never_called_broken(entries: list[Entry]):
    assert soundness(entries) is None


GAP = [
    *TURN,
    row("boundary", None, "system", subtype="compact_boundary", logicalParentUuid="answer"),
    row("summary", "boundary", isCompactSummary=True),
    row("next", "never written"),
    row("its answer", "next", "assistant"),
]


def test_a_gap_behind_a_compaction_is_where_it_begins():
    assert soundness(GAP) == "broken_chain"
    found = since_gap(GAP)
    assert found
    begun, forgotten = found
    assert soundness(begun) is None
    assert [e for e in begun if e not in GAP] == [row("next", None)]
    assert forgotten == sum(e["type"] in ("user", "assistant") for e in GAP) - 2
    assert GAP[-2]["parentUuid"] == "never written", "what was read is as it was"


@pytest.mark.parametrize(
    "entries",
    [
        TURN,
        [],
        [entry for entry in TURN if entry.get("uuid") != "text"],  # nothing explains it
        [*GAP[-2:], *GAP[:-2], row("x", "next")],  # the compaction came later
        [*TURN, GAP[-4], row("a", "b"), row("b", "a", "assistant")],  # a circle
    ],
)
def test_no_other_gap_is_passed_over(entries: list[Entry]):
    assert since_gap(entries) is None


@pytest.mark.parametrize("lost", ["ask", "model", "text", "call 1", "call 2", "result 2"])
def test_a_gap_on_the_way_back_is_found(lost: str):
    assert soundness([entry for entry in TURN if entry.get("uuid") != lost]) == "broken_chain"


def test_a_chain_that_bites_its_tail_is_broken():
    assert soundness([row("a", "b"), row("b", "a", "assistant")]) == "broken_chain"


def test_a_gap_in_a_sub_agents_line_breaks_nothing():
    assert soundness([row("ask", None), row("side", "gone", isSidechain=True)]) is None


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [{"type": "queue-operation"}, {"type": "mode"}],
        [row("model", None, "attachment")],
        [row("side", None, isSidechain=True)],
    ],
)
def test_a_transcript_without_a_message_is_empty(entries: list[Entry]):
    assert soundness(entries) == "empty"


def test_what_a_fork_changes_is_not_in_the_body():
    ours = {
        "type": "user",
        "uuid": "u",
        "sessionId": "a",
        "promptId": "p",
        "message": {"z": 1, "a": 2},
    }
    theirs = {
        "message": {"z": 1, "a": 2},
        "slug": "s",
        "uuid": "u",
        "requestSessionId": None,
        "type": "user",
        "sessionId": "b",
    }
    assert body(ours) == body(theirs)
    assert body(ours) != body(ours | {"message": {"z": 1, "a": 3}})


def test_the_order_of_keys_below_the_top_level_is_kept_for_the_prompt_cache():
    message = json.loads(body({"type": "x", "message": {"z": 1, "a": 2}}).json)["message"]
    assert list(message) == ["z", "a"]


def test_runs_give_back_the_order():
    ids = [7, 8, 9, 3, 3, 4, 1]
    starts, lengths = runs_of(ids)
    assert (starts, lengths) == ([7, 3, 3, 1], [3, 1, 2, 1])


def test_an_overlay_told_of_another_number_of_entries_is_refused():
    entries = [{"type": "x", "sessionId": "s"}] * 2
    with pytest.raises(ValueError, match="told of 2 entries"):
        restore([], overlay(entries))
