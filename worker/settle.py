"""What an attempt does about a failed turn by itself, before the job has to wait.

    NEXT     the session cannot be resumed: its turn at the ladder is over, the next one's is up
    COMPACT  the head is compacted, as a committed turn of its own; then the turn again
    FRESH    a fresh session, the past retold; COMPACT comes to this if it was in vain
    RETRY    left to the job, unless the failure used up the session's credit
    FAIL     and a RETRY that the job has no attempt left for: as FRESH, unless the cause is
             known to lie elsewhere. So no job fails because of sessions alone.

COMPACT and FRESH once each in a step of an attempt. docs/decisions/0006 says what counts against
a session, 0014 why no request ends without having met a fresh one.
"""

from typing import TYPE_CHECKING

from config.settings import settings
from db import registry, turns
from db.pool import connection
from worker.compaction import compact
from worker.ending import fails_for_good
from worker.errors import Judgement
from worker.ladder import RECOVERY, Choice
from worker.step import Step
from worker.verdicts import BLAMED, Verdict

if TYPE_CHECKING:
    from worker.chain import Attempt

ANOTHER = {Verdict.NEXT, Verdict.COMPACT, Verdict.FRESH}  # this session will not do


def goes_on(at: "Attempt", step: Step, choice: Choice, judgement: Judgement) -> bool:
    """Whether the turn is to be tried again now, on whatever the ladder then gives."""
    parent = choice.parent
    if parent is None:
        return False
    if choice.source == RECOVERY:
        return _leave(at, parent, judgement)
    compacts = step.mode == "compact"  # there is nothing of a fresh session to compact
    match judgement.verdict:
        case Verdict.NEXT:
            _bar(at, choice, judgement.error_class)
            return True
        case Verdict.RETRY if _counted(at, choice, judgement):
            return True
        case _ if compacts:
            return False
        case Verdict.COMPACT:
            return _compact(at, parent, judgement.error_class) or _fresh(at, judgement)
        case Verdict.FRESH:
            return _fresh(at, judgement)
        case _:
            return fails_for_good(at.job, judgement) and _fresh(at, judgement)


def _leave(at: "Attempt", parent: str, judgement: Judgement) -> bool:
    """A dead attempt's session cannot be gone on from: the head is what it was."""
    strange = not judgement.known or judgement.verdict in ANOTHER
    if not strange and not fails_for_good(at.job, judgement):
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
    if Verdict.COMPACT in at.remedies or parent != at.job.head:
        return False
    at.remedies.add(Verdict.COMPACT)
    return compact(at, reason=reason)


def _fresh(at: "Attempt", judgement: Judgement) -> bool:
    """Bar every candidate, so that the ladder ends at a fresh session."""
    if Verdict.FRESH in at.remedies:
        return False
    at.remedies.add(Verdict.FRESH)
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
