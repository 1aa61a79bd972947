"""What the project's newest session and its past are weighed by (cheapest.py), before the ladder is
climbed: a head of many turns, one that the provider's cache has lost, one of another CLI."""

from dataclasses import replace

from psycopg import Connection

from config.settings import settings
from db.jobs.attempts import Claimed
from db.sessions import habits
from db.sessions.habits import Habits
from db.sessions.registry import Session
from worker.session import cheapest
from worker.session.cheapest import Way, Weighed


def head_of(job: Claimed, found: list[Session]) -> Session | None:
    """The session of a build's head, if it is the project's own."""
    return next(
        (one for one in found if job.kind == "build" and one.session_id == job.head), None
    )


def past_of(conn: Connection, job: Claimed, session: Session) -> Habits:
    """Of the project, where its session is long enough for them to matter; with the present rest."""
    if session.context_tokens < cheapest.HOUR_FROM:
        return habits.NONE
    known = habits.of(conn, job.project_id, job.lane)
    return replace(known, gaps=[session.age.total_seconds(), *known.gaps])


def look_at(head: Session, ways: tuple[Way, ...], known: Habits) -> Weighed | None:
    """A head of too many turns is compacted first, or left for a fresh one. A long one may be
    compacted first if the provider's cache has lost it, and be left if money is to decide; that the
    CLI was changed is told."""
    if head.turns_since_start >= settings().reset_after_turns:
        return weigh("turns", ways, head, known)
    if "compact" not in ways or head.age > settings().stale_after:
        return None
    for_cost = settings().long_sessions == "cheapest"
    long = head.context_tokens >= cheapest.long()
    cold = long and cheapest.cold(head.context_tokens, head.age.total_seconds(), known)
    if not cold and not (long and for_cost) and not _changed(head):
        return None
    open_ways: tuple[Way, ...] = ("resume", "compact") if long else ("resume",)
    if long and for_cost:
        open_ways = (*open_ways, "fresh")
    why = "cli_changed" if _changed(head) else "cold" if cold else "long"
    return weigh(why, open_ways, head, known)


def weigh(why: str, ways: tuple[Way, ...], session: Session, known: Habits) -> Weighed:
    return cheapest.weigh(
        why,
        ways,
        context=session.context_tokens,
        idle=session.age.total_seconds(),
        habits=known,
        changed=_changed(session),
        model=session.model,
    )


def _changed(session: Session) -> bool:
    """Whether another version of the CLI made it: its prompt is another, and nothing cached fits."""
    from worker.agent.version import changed  # with what commands do without

    return changed(session.cli_version)
