"""What an attempt does about a failed turn by itself, before the job has to wait.

    NEXT     the session cannot be resumed: its turn at the ladder is over, the next one's is up
    COMPACT  the head is compacted, as a committed turn of its own; then the turn again
    FRESH    a fresh session, the past retold; COMPACT comes to this if it was in vain
    RETRY    left to the job, unless the failure used up the session's credit

COMPACT and FRESH once each in an attempt. docs/decisions/0006 says what counts against
a session.
"""

from typing import TYPE_CHECKING

from config.settings import settings
from db import registry, turns
from db.pool import connection
from worker.compaction import compact
from worker.errors import BLAMED, Judgement, Verdict
from worker.ladder import RECOVERY, Choice
from worker.step import Step

if TYPE_CHECKING:
    from worker.chain import Attempt

ELSEWHERE = {Verdict.NEXT, Verdict.COMPACT, Verdict.FRESH}  # this session will not do
TIMEOUTS = {"turn_timeout", "idle_timeout"}  # a fresh session would most likely take as long


def goes_on(at: "Attempt", step: Step, choice: Choice, judgement: Judgement) -> bool:
    """Whether the turn is to be tried again now, on whatever the ladder then gives."""
    parent = choice.parent
    if parent is None:
        return False
    if choice.source == RECOVERY:
        return _leave(at, parent, judgement)
    match judgement.verdict:
        case Verdict.NEXT:
            _bar(at, choice, judgement.error_class)
            return True
        case Verdict.COMPACT if step.mode != "compact":
            return _compact(at, parent, judgement.error_class) or _fresh(at, judgement)
        case Verdict.FRESH if step.mode != "compact":
            return _fresh(at, judgement)
        case Verdict.RETRY:
            return _counted(at, choice, judgement) or _last_resort(at, step, judgement)
        case _:
            return False


def _leave(at: "Attempt", parent: str, judgement: Judgement) -> bool:
    """A dead attempt's session cannot be gone on from: the head is what it was."""
    if judgement.known and judgement.verdict not in ELSEWHERE:
        return False
    at.barred[parent] = judgement.error_class
    at.go_back()
    return True


def _bar(at: "Attempt", choice: Choice, reason: str) -> None:
    assert choice.parent
    at.barred[choice.parent] = reason
    if choice.template:
        return  # others begin from it too: what this project met says nothing of them
    with connection() as conn:
        registry.count_failure(conn, choice.parent, limit=settings().resume_failures)


def _compact(at: "Attempt", parent: str, reason: str) -> bool:
    if Verdict.COMPACT in at.settled or parent != at.job.head:
        return False
    at.settled.add(Verdict.COMPACT)
    return compact(at, reason=reason)


def _fresh(at: "Attempt", judgement: Judgement) -> bool:
    """Bar every candidate, so that the ladder ends at a fresh session."""
    if Verdict.FRESH in at.settled:
        return False
    at.settled.add(Verdict.FRESH)
    with connection() as conn:
        found = registry.candidates(
            conn, at.job, user_id=at.job.user_id, handed=at.job.previous_session_id
        )
    tried = (
        [at.choice.parent] if at.choice and at.choice.parent else []
    )  # a template's, it may be
    for session_id in (*tried, *(session.session_id for session in found)):
        at.barred.setdefault(session_id, judgement.error_class)
    return True


def _counted(at: "Attempt", choice: Choice, judgement: Judgement) -> bool:
    """Count an unknown failure, or the second that may be the session's fault. Whether the
    session is not to be tried any more, so that the next candidate is up."""
    parent = choice.parent
    assert parent
    with connection() as conn:
        if judgement.known and not (
            judgement.error_class in BLAMED
            and turns.failures(conn, at.job.id, parent=parent, classes=BLAMED) > 1
        ):
            return False
        limit = settings().resume_failures
        if not choice.template and registry.count_failure(conn, parent, limit=limit) < limit:
            return False
    at.barred[parent] = judgement.error_class
    return True


def _last_resort(at: "Attempt", step: Step, judgement: Judgement) -> bool:
    """On the job's last attempt, a failure that may be the session's is tried without it."""
    suspect = not judgement.known or judgement.error_class in BLAMED - TIMEOUTS
    last = at.job.attempts >= settings().attempts
    return suspect and last and step.mode != "compact" and _fresh(at, judgement)
