"""What the project's newest session and its past are weighed by (cheapest.py), before the ladder is
climbed: a head of many turns, one that the provider's cache has lost, one of another CLI."""

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
    """Of the project, where its session is long enough for them to matter."""
    long = session.context_tokens >= cheapest.LONG
    return habits.of(conn, job.project_id, job.lane) if long else habits.NONE


def look_at(head: Session, ways: tuple[Way, ...], known: Habits) -> Weighed | None:
    """A head of too many turns is compacted first, or left for a fresh one. One that the provider's
    cache has lost may be compacted first if it is long; that the CLI was changed is told."""
    if head.turns_since_start >= settings().reset_after_turns:
        return weigh("turns", ways, head, known)
    if "compact" not in ways or head.age > settings().stale_after:
        return None
    cold = head.age > settings().cache_ttl and head.context_tokens >= cheapest.LONG
    if not cold and not _changed(head):
        return None
    long: tuple[Way, ...] = ("resume", "compact")
    open_ways = long if head.context_tokens >= cheapest.LONG else ("resume",)
    return weigh("cli_changed" if _changed(head) else "cold", open_ways, head, known)


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
