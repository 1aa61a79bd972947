"""What is to be done about a failed turn before its job has to wait: decided here, done in turn.py.

    GIVE_UP   left to the job: it is tried again later, waits, or fails
    NEXT      this session cannot be resumed, or has used up its credit: the next candidate
    GO_BACK   what a dead attempt left cannot be gone on from: the head is what it was
    COMPACT   the head is compacted, as a committed turn of its own; then the turn again
    FRESH     a fresh session, the past retold; COMPACT comes to this if it was in vain

A failure that the job has no attempt left for comes to FRESH too, unless its cause is known to
lie elsewhere: so no job fails because of sessions alone. COMPACT and FRESH come once each in a
step of an attempt. docs/decisions/0006 says what counts against a session, 0014 why no request
ends without having met a fresh one.
"""

from enum import Enum, auto

from config.settings import settings
from db.core.pool import connection
from db.sessions import registry, turns
from worker.failures.errors import Judgement
from worker.failures.verdicts import BLAMED, Verdict
from worker.job.attempt import Attempt
from worker.job.endings import fails_for_good
from worker.session.ladder import RECOVERY, Choice

ANOTHER = {Verdict.NEXT, Verdict.COMPACT, Verdict.FRESH}  # this session will not do


class Then(Enum):
    GIVE_UP = auto()
    NEXT = auto()
    GO_BACK = auto()
    COMPACT = auto()
    FRESH = auto()


def decide(at: Attempt, choice: Choice, judgement: Judgement, *, compacts: bool) -> Then:
    """What to do about a turn on this choice that failed so. `compacts`: it was a compaction,
    and there is nothing of a fresh session to compact."""
    if choice.parent is None:
        return Then.GIVE_UP
    if choice.source == RECOVERY:
        return Then.GO_BACK if _is_of_no_use(at, judgement) else Then.GIVE_UP
    match judgement.verdict:
        case Verdict.NEXT:
            _count(choice)
            return Then.NEXT
        case Verdict.RETRY if _has_no_credit(at, choice, judgement):
            return Then.NEXT
        case _ if compacts:
            return Then.GIVE_UP
        case Verdict.COMPACT if choice.parent == at.job.head and not at.compacted:
            return Then.COMPACT
        case Verdict.COMPACT | Verdict.FRESH:
            return or_give_up(at)
        case _:
            return or_give_up(at) if fails_for_good(at.job, judgement) else Then.GIVE_UP


def or_give_up(at: Attempt) -> Then:
    """A fresh session, once a step."""
    return Then.GIVE_UP if at.fresh else Then.FRESH


def _is_of_no_use(at: Attempt, judgement: Judgement) -> bool:
    """Whether a dead attempt's session cannot be gone on from."""
    strange = not judgement.known or judgement.verdict in ANOTHER
    return strange or fails_for_good(at.job, judgement)


def _count(choice: Choice) -> int:
    """Note one more failure against the session, and return how many that are. A template's is
    not counted: others begin from it too, and what this project met says nothing of them."""
    if choice.template or choice.parent is None:
        return settings().resume_failures
    with connection() as conn:
        return registry.count_failure(conn, choice.parent, limit=settings().resume_failures)


def _has_no_credit(at: Attempt, choice: Choice, judgement: Judgement) -> bool:
    """Count an unknown failure, or the second that may be the session's fault. Whether the
    session is not to be tried any more."""
    if judgement.known:
        if judgement.error_class not in BLAMED or choice.parent is None:
            return False
        with connection() as conn:
            if turns.failures(conn, at.job.id, parent=choice.parent, classes=BLAMED) <= 1:
                return False
    return _count(choice) >= settings().resume_failures
