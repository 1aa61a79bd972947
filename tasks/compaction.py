"""Compact a project's session, so that the next turn begins with less to read.

It counts only if the CLI said that it compacted and the new session is smaller and
loads; otherwise the head stays where it is, and the job says so.
"""

from config.settings import settings
from db.core.pool import connection
from db.sessions import habits, registry
from tasks.metadata import version_of
from worker.failures.errors import NotResumable
from worker.job import job_events
from worker.job.attempt import Attempt
from worker.job.commit import Outcome
from worker.job.compaction import not_compacted
from worker.job.delivery import does
from worker.job.endings import without_turn
from worker.job.legs import conclude
from worker.job.step import Step
from worker.job.turn import discard, run_turn
from worker.session import cheapest


@does("compaction")
def do_compaction(at: Attempt) -> None:
    """One /compact of the head, verified before it becomes the head."""
    if reason := _needless(at):
        without_turn(at.job, {"skipped": reason})
        return
    try:
        turn = run_turn(at, Step(name="compaction", prompt="/compact", mode="compact"))
    except NotResumable as exc:
        without_turn(at.job, {"skipped": str(exc)})  # the next turn climbs the ladder
        return
    if reason := not_compacted(turn):
        discard(at, reason)
        without_turn(at.job, {"skipped": reason})
        return
    conclude(
        at,
        turn,
        Outcome(
            step="compaction",
            source="compact",
            version=version_of(at),
            result={"pre_tokens": turn.pre_tokens, "post_tokens": turn.post_tokens},
        ),
    )


def _needless(at: Attempt) -> str | None:
    """Why not to compact. One that was asked for by itself is always done."""
    if at.job.head is None:
        return "no_session"
    if at.job.args.get("asked") == "compaction" or settings().compact == "always":
        return None
    if settings().compact == "never":
        return "policy_never"
    with connection() as conn:
        head = registry.get(conn, at.job.head)
        tokens = head.context_tokens if head else 0
        if tokens >= settings().compact_threshold * settings().context_window:
            return None
        long = tokens >= cheapest.LONG
        known = habits.of(conn, at.job.project_id, at.job.lane) if long else habits.NONE
    weighed = cheapest.sum_up_now(tokens, known, model=head.model if head else None)
    if weighed:
        at.tell(job_events.weighed(at.job, weighed))
    return None if weighed and weighed.way == "compact" else "below_threshold"
