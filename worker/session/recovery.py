"""What a dead attempt left behind, and what is made of it.

    finished   its turn had ended, and all of it is in the store: committed as it stands
    partial    it broke off, and what is there is sound: gone on from, on a fork of it
    lost       nothing to go on from: the turn begins again from the head, `why` says the reason

An attempt is dead when its worker is, was stopped for a deploy, or could not send the files
that its turn had made to where other hosts find them. Whatever session it had forked, the
head must still be what it was then; the files that belong to it are those that it left in
the workspace.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from config.settings import settings
from db.jobs.attempts import Claimed
from db.sessions import registry, turns
from db.sessions.turns import BegunTurn, Try
from db.transcripts import transcripts
from db.transcripts.form import Entry
from db.transcripts.transcripts import TranscriptDamaged
from worker.agent import Turn
from worker.agent.answers import GIVEN_BY
from worker.agent.usage import context, count, weight
from worker.session import ladder
from worker.session.ladder import FINISHED, RECOVERY, Choice
from worker.text.storable import plain, plain_data

ENDS = {"end_turn", "stop_sequence"}
NOTHING = {"not_found", "empty", "nothing_done"}  # no word of the model's is lost with it


@dataclass(frozen=True, slots=True)
class Left:
    """The dead attempt's newest turn; `new` is what it added to the session that it forked.

    `lost` says why it is of no use; None: it may be committed, or gone on from.
    """

    begun: BegunTurn
    entries: list[Entry]
    new: list[Entry]
    lost: str | None

    @property
    def why(self) -> str:
        """What became of the attempt: `worker_died`, or one of `turns.NOT_ITS_FAULT`."""
        return self.begun.error_class or "worker_died"


def look(conn: Connection, job: Claimed, begun: list[BegunTurn]) -> Left | None:
    """What the attempt before this one left; None when it came to an end of its own."""
    if not begun or not _broke_off(begun[-1]):
        return None
    left = _left(conn, job, begun[-1])
    if left.begun.source != RECOVERY or left.lost not in NOTHING:
        return left
    before = [turn for turn in begun if turn.minted == left.begun.parent]
    return _left(conn, job, before[-1]) if before else left  # it added nothing to that one


def _left(conn: Connection, job: Claimed, turn: BegunTurn) -> Left:
    found = ladder.look(conn, job.project_id, turn.minted)
    try:
        known = _uuids(_past(conn, job, turn))
    except TranscriptDamaged:
        return Left(turn, [], [], "damaged")  # the ladder has the rest to say
    new = [entry for entry in found.entries if entry.get("uuid") not in known]
    turns.charge(
        conn, job, minted=turn.minted, raw_cost_usd=_told_cost(new), weight=_weight(new)
    )
    anew = bool(known) and len(new) == len(found.entries)
    lost = found.reason or (ladder.AGENT_RESET if anew else None) or _unfit(job, turn, new)
    return Left(turn, found.entries, new, lost)


def _broke_off(turn: BegunTurn) -> bool:
    no_fault = turns.NOT_THE_SESSIONS if turn.source == RECOVERY else turns.NOT_ITS_FAULT
    return turn.outcome == "abandoned" or (
        turn.outcome == "failed" and turn.error_class in no_fault
    )


def _past(conn: Connection, job: Claimed, turn: BegunTurn) -> list[Entry]:
    if turn.parent is None:
        return []
    parent = registry.get(conn, turn.parent)  # a template's is another project's
    project_id = parent.project_id if parent else job.project_id
    return transcripts.load(conn, project_id, turn.parent) or []


def _unfit(job: Claimed, turn: BegunTurn, new: list[Entry]) -> str | None:
    if turn.old != job.head:
        return "head_moved"
    if turn.step.startswith("compact"):
        return "compaction"  # one call of the model: there is no half of it
    ended = _ended(new) or _structured(new) is not None
    if turn.age > settings().stale_after and not ended:
        return "stale"
    if not _answers(new):
        return "nothing_done"
    return None if ended and turn.parent is None else ladder.policy(job)


def finished(left: Left, *, structured: bool) -> Turn | None:
    """The turn, if the agent had ended it; `structured`: an answer of a given form was asked for."""
    answers = _answers(left.new)
    answer = _structured(left.new)
    if not (answer is not None if structured else _ended(left.new)):
        return None
    usages = _usages(left.new)
    told, last = _told_cost(left.new), answers[-1]
    return Turn(
        session=left.begun.minted,
        parent=left.begun.parent,
        minted=left.begun.minted,
        relation="forked" if left.begun.parent else "fresh",
        text=plain(_text(answers)),
        structured=plain_data(answer),
        raw_cost_usd=told or 0.0,  # without a figure the CLI begins at nothing again
        weight=0.0 if told is not None else weight(usages),
        input_tokens=sum(count(one, "input") for one in usages),
        output_tokens=sum(count(one, "output") for one in usages),
        cache_read_tokens=sum(count(one, "cache_read") for one in usages),
        cache_creation_tokens=sum(count(one, "cache_creation") for one in usages),
        context_tokens=context(usages[-1]),
        duration_ms=_duration(left.new),
        num_turns=len(usages),
        model=last["message"].get("model"),
        cli_version=last.get("version"),
    )


def as_begun(turn: BegunTurn) -> Choice:
    """The choice on which a turn that had ended was begun."""
    return Choice(turn.parent, [], [], turn.reason or FINISHED, turn.source, finished=True)


def go_on(conn: Connection, job: Claimed, left: Left) -> Choice:
    """Choose the dead attempt's session, to be forked as any other."""
    session = left.begun.minted
    raw = _told_cost(left.new) or 0.0
    registry.adopt(conn, job, session, parent=left.begun.parent, raw_cost_usd=raw)
    tries = [Try(session, "trying", left.why)]
    return Choice(session, left.entries, tries, left.why, RECOVERY)


def _uuids(entries: list[Entry]) -> set[Any]:
    return {entry["uuid"] for entry in entries if "uuid" in entry}


def _answers(new: list[Entry]) -> list[Entry]:
    """What the model itself said, block by block; sub-agents and the CLI's own words left out."""
    return [
        entry
        for entry in new
        if entry.get("type") == "assistant"
        and entry.get("isSidechain") is not True
        and entry["message"].get("model") != "<synthetic>"
    ]


def _ended(new: list[Entry]) -> bool:
    """Whether the model had said its last word, and the CLI had closed the turn after it."""
    answers = _answers(new)
    if not answers or answers[-1]["message"].get("stop_reason") not in ENDS:
        return False
    after = new[new.index(answers[-1]) + 1 :]
    if any(entry.get("type") == "user" for entry in after):
        return False
    return any(
        entry.get("type") == "cost-state" or entry.get("leafUuid") == answers[-1]["uuid"]
        for entry in after
    )


def _structured(new: list[Entry]) -> Any:
    """The newest answer that was given through the tool and taken; None if none was."""
    taken = {
        block.get("tool_use_id")
        for entry in new
        if entry.get("type") == "user"
        for block in _blocks(entry)
        if block.get("type") == "tool_result" and not block.get("is_error")
    }
    given = [
        block.get("input")
        for entry in _answers(new)
        for block in _blocks(entry)
        if block.get("name") in GIVEN_BY and block.get("id") in taken
    ]
    return given[-1] if given else None


def _blocks(entry: Entry) -> list[dict[str, Any]]:
    content: str | list[dict[str, Any]] = entry["message"].get("content") or []
    return [] if isinstance(content, str) else content


def _text(answers: list[Entry]) -> str:
    """The text of the model's last message."""
    last = answers[-1]["message"].get("id")
    said = [
        block.get("text", "")
        for entry in answers
        if entry["message"].get("id") == last
        for block in _blocks(entry)
        if block.get("type") == "text"
    ]
    return "\n".join(said)


def _usages(new: list[Entry]) -> list[dict[str, Any]]:
    """What each call of the model used; it is told again with each block of the answer."""
    by_message: dict[Any, dict[str, Any]] = {
        entry["message"].get("id"): entry["message"].get("usage") or {}
        for entry in new
        if entry.get("type") == "assistant"
    }
    return list(by_message.values())


def _weight(new: list[Entry]) -> float:
    return weight(_usages(new))


def _told_cost(new: list[Entry]) -> float | None:
    """The CLI's cumulative figure (USD), if it lived to write it down."""
    told = [entry.get("totalCostUSD") for entry in new if entry.get("type") == "cost-state"]
    return float(told[-1]) if told and told[-1] is not None else None


def _duration(new: list[Entry]) -> int:
    """Milliseconds from the first of the entries to the last."""
    times = [datetime.fromisoformat(e["timestamp"]) for e in new if e.get("timestamp")]
    return int((max(times) - min(times)).total_seconds() * 1000) if times else 0
