"""When a compaction counts: the CLI said that it compacted, and the new session is smaller."""

from worker.agent import Turn
from worker.failures.errors import Judgement
from worker.failures.verdicts import Verdict


def not_compacted(turn: Turn) -> str | None:
    """Why a compaction does not count: no boundary was seen, or the context is no smaller."""
    if not turn.compacted:
        return "not_compacted"
    if turn.pre_tokens is not None and turn.post_tokens is not None:
        return None if turn.post_tokens < turn.pre_tokens else "not_smaller"
    return None


def in_vain(judgement: Judgement) -> bool:
    """Too long to be compacted, or refused, or nobody knows why: not what another try mends."""
    return (
        judgement.verdict in (Verdict.COMPACT, Verdict.FRESH)
        or judgement.error_class == "compaction_failed"
    )
