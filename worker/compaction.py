"""Compacting a session on the way: when the context was too long for the turn that was asked for.

A compaction counts only if the CLI said that it compacted and the new session is smaller.
"""

from typing import TYPE_CHECKING
from uuid import uuid4

from worker.agent import Turn
from worker.commit import Outcome, commit
from worker.ending import fails_for_good
from worker.errors import JobError, Judgement, NotResumable, judge
from worker.step import Step
from worker.verdicts import Verdict

if TYPE_CHECKING:
    from worker.chain import Attempt


def compact(at: "Attempt", *, reason: str) -> bool:
    """Compact the head, as a committed turn of its own; whether the head is smaller now."""
    step = Step(name=f"compact:{uuid4().hex[:8]}", prompt="/compact", mode="compact")
    try:
        turn = at.run(step)
    except NotResumable:
        return False
    except JobError as exc:
        judgement = judge(exc, resumed=True)
        if _in_vain(judgement) or fails_for_good(at.job, judgement):
            return False  # a fresh session is left
        raise
    if why := not_compacted(turn):
        at.discard(why)
        return False
    commit(at, turn, Outcome(step=step.name, source="compact", reason=reason, final=False))
    return True


def _in_vain(judgement: Judgement) -> bool:
    """Too long to be compacted, or refused, or nobody knows why: not what another try mends."""
    return (
        judgement.verdict in (Verdict.COMPACT, Verdict.FRESH)
        or judgement.error_class == "compaction_failed"
    )


def not_compacted(turn: Turn) -> str | None:
    """Why a compaction does not count: no boundary was seen, or the context is no smaller."""
    if not turn.compacted:
        return "not_compacted"
    if turn.pre_tokens is not None and turn.post_tokens is not None:
        return None if turn.post_tokens < turn.pre_tokens else "not_smaller"
    return None
