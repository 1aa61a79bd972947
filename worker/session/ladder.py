"""Which session to resume: the head, else the next best that is sound, else none.

    head → handed-down id → the version's → older heads → fresh, the past retold

Each candidate is checked before anything is spawned: whose it is (in SQL), whether it
may be resumed, how old it is, and whether all of it lies in the store. Every one that
was looked at is recorded, with the reason, before the prompt is sent.
"""

import hashlib
import re
from dataclasses import dataclass, field, replace

from psycopg import Connection

from config.log import log
from config.settings import settings
from db.jobs.attempts import Claimed
from db.jobs.lanes import MAIN
from db.sessions import habits, registry
from db.sessions.registry import Session
from db.sessions.turns import Try
from db.transcripts import transcripts
from db.transcripts.form import Entry, soundness
from db.transcripts.transcripts import TranscriptDamaged
from worker.session import weighing
from worker.session.cheapest import Way, Weighed, worth_an_hour
from worker.session.conversation import spoken

UUID_FORM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Choice:
    """The session to fork (None: begin fresh), why, and all that was looked at.

    `reason` is None on a resumed head and on a first session; otherwise why the head, or a
    template, was not resumed. `entries` is the parent's transcript, read and found sound.
    """

    parent: str | None
    entries: list[Entry]
    tries: list[Try]
    reason: str | None
    source: str | None = None  # fallback or reset, when the head was passed over; recovery
    finished: bool = False  # a dead attempt had made the turn, which is committed as it stands
    weighed: Weighed | None = None  # where the cheapest way was looked for
    hour: bool | None = None  # whether prompts are to be kept for one; None: as its parent's
    template: str | None = None  # the project that the parent is of, if not the job's own

    @property
    def lost_head(self) -> bool:
        """Whether a head was there and, by no one's wish, a fresh session has to begin."""
        return self.parent is None and self.source == "fallback"


FINISHED = "finished"  # the reason of a move that a dead attempt had made ready
RECOVERY = "recovery"  # the source of a turn that goes on from a dead attempt's session
TEMPLATE = "template"  # the reason of a first session that was forked from a template's
TEMPLATE_LOST = "template_lost"  # and of one that began fresh, since that could not be
AGENT_RESET = "agent_reset"  # the agent was to go on from a session, and began anew


def choose(
    conn: Connection,
    job: Claimed,
    *,
    barred: dict[str, str],
    fresh: str | None = None,
    ways: tuple[Way, ...] = (),
    restructured: float = 0.0,
) -> Choice:
    """Climb the ladder. `barred` are sessions that this attempt has tried, with the reason;
    `fresh` is why none of them will do.

    `ways` are those open to a head of too many turns; none: its turns are not looked at.
    `restructured`: share of the project's files that came or went by other hands.
    """
    if job.head is None and job.previous_session_id is None and not job.args.get("template"):
        return Choice(None, [], [Try(None, "trying", "first")], None)
    if job.head and job.args.get("answer") == "start_new":
        return _fresh([], str(job.args.get("lost") or "start_new"), "fallback")
    if reason := policy(job):
        return _fresh([], reason, "reset" if job.head else None)
    if job.head is None and (name := job.args.get("template")):
        return _of_template(conn, str(name), barred, fresh)
    if job.head and restructured >= settings().structural_change:
        return _fresh([], "restructured", "reset")
    found = registry.candidates(conn, job, user_id=job.user_id, handed=job.previous_session_id)
    head = weighing.head_of(job, found) if ways else None
    known = weighing.past_of(conn, job, head) if head else habits.NONE
    hour = worth_an_hour(head.context_tokens, known) if head and known.known else None
    weighed = weighing.look_at(head, ways, known) if head else None
    if weighed and weighed.way != "resume":
        return replace(_fresh([], "reset", "reset"), weighed=weighed, hour=hour)
    climb = _Climb(conn, job, barred, fresh, _not_found(conn, job, found), weighed)
    choice = next(filter(None, map(climb.step, found)), None)
    if choice is None:
        why = _why(job, climb.tries)
        choice = _fresh(climb.tries, why, "fallback" if job.head else None)
    else:
        choice = replace(choice, tries=[*choice.tries, *_hints(job, choice, found)])
    return replace(choice, weighed=climb.weighed, hour=hour)


@dataclass
class _Climb:
    """What is known so far: the candidates that were looked at, and what the head would cost."""

    conn: Connection
    job: Claimed
    barred: dict[str, str]
    fresh: str | None
    tries: list[Try]
    weighed: Weighed | None = None

    def step(self, session: Session) -> Choice | None:
        """The choice of this session, or None if it will not do."""
        entries: list[Entry] = []
        reason = self.barred.get(session.session_id) or self.fresh or self._unfit(session)
        if reason is None:
            entries, reason = _load(self.conn, self.job.project_id, session.session_id)
        if reason:
            self.tries.append(Try(session.session_id, "rejected", reason))
            return None
        self.tries.append(Try(session.session_id, "trying"))
        passed = None if session.session_id == self.job.head else _why(self.job, self.tries)
        return Choice(session.session_id, entries, self.tries, passed)

    def _unfit(self, session: Session) -> str | None:
        if not UUID_FORM.fullmatch(session.session_id):
            return "not_a_uuid"  # the CLI would look for a session of that title
        if not session.is_resumable:
            return "not_resumable"
        chosen = self.job.lane != MAIN and session.rank == 0  # by the request, however old
        if chosen or session.age <= settings().stale_after:
            return None
        registry.mark_stale(self.conn, [session.session_id])
        if self.weighed and self.weighed.way == "fresh":
            return (
                "stale"  # to begin fresh costs less than the head: it knows more than this one
            )
        known = weighing.past_of(self.conn, self.job, session)
        weighed = weighing.weigh("stale", ("fresh", "resume"), session, known)
        if session.session_id == self.job.head:
            self.weighed = weighed
        return None if weighed.way == "resume" else "stale"


def _of_template(
    conn: Connection, name: str, barred: dict[str, str], fresh: str | None
) -> Choice:
    """A new project's first session: a fork of the template's, if that is sound."""
    session, entries, reason = registry.template(conn, name), list[Entry](), None
    if session:
        reason = barred.get(session) or fresh
        if reason is None:
            entries, reason = _load(conn, name, session)
    if session is None or reason:
        tries = [Try(session, "rejected", reason)] if session else []
        return replace(_fresh(tries, TEMPLATE_LOST, None), reason=TEMPLATE_LOST)
    tries = [Try(session, "trying", TEMPLATE)]
    return Choice(session, entries, tries, TEMPLATE, template=name)


def _fresh(tries: list[Try], reason: str, source: str | None) -> Choice:
    tries = [*tries, Try(None, "trying", reason)]
    return Choice(None, [], tries, reason if source else None, source)


def wants_to_be_asked(job: Claimed) -> bool:
    """Whether people are to choose before a fresh session begins, and have not yet chosen."""
    return job.args.get("on_lost") == "ask" and job.args.get("answer") != "start_new"


def in_rollout(project_id: str) -> bool:
    """Whether the project is among the percentage that resumes: the same answer everywhere."""
    place = int(hashlib.sha256(project_id.encode()).hexdigest()[:8], 16) % 100
    return place < settings().resume_percent


def policy(job: Claimed) -> str | None:
    """Why the turn is to begin fresh although a session may be there."""
    if not settings().resume_enabled:
        return "resume_off"
    if not in_rollout(job.project_id):
        return "control"
    if job.fresh_next or job.args.get("fresh"):
        return "asked_fresh"
    return None


def _load(conn: Connection, project_id: str, session_id: str) -> tuple[list[Entry], str | None]:
    """The transcript, and why it is of no use. A damaged one is condemned for good."""
    entries, reason = _read(conn, project_id, session_id)
    if reason and reason != "not_found":
        registry.condemn(conn, session_id)
    return entries, reason


def _read(conn: Connection, project_id: str, session_id: str) -> tuple[list[Entry], str | None]:
    try:
        found = transcripts.load_marked(conn, project_id, session_id)
    except TranscriptDamaged:
        return [], "damaged"
    if found is None:
        return [], "not_found"
    entries, mark = found
    return entries, _soundness(session_id, mark, entries)


@dataclass(frozen=True, slots=True)
class Looked:
    """A new session as the store has it: why it is not whole (None: it is), the summary of
    its newest compaction, and its entries."""

    reason: str | None
    summary: str | None = None
    entries: list[Entry] = field(default_factory=list[Entry])


def look(conn: Connection, project_id: str, session_id: str) -> Looked:
    """Read a session that a turn has just made."""
    entries, reason = _read(conn, project_id, session_id)
    return Looked(reason, summary_of(entries), entries)


def shares(parent: list[Entry], child: list[Entry]) -> bool:
    """Whether a fork has anything of its parent's conversation."""
    known = {entry["uuid"] for entry in parent if "uuid" in entry}
    return any(entry.get("uuid") in known for entry in child)


def summary_of(entries: list[Entry]) -> str | None:
    """The text that the newest compaction put in the place of what was before it."""
    for entry in reversed(entries):
        if entry.get("isCompactSummary"):
            return spoken(entry) or None
    return None


_sound: dict[tuple[str, str], str | None] = {}  # by session and fingerprint: it cannot change
SOUND_KEPT = 1000


def _soundness(session_id: str, mark: str, entries: list[Entry]) -> str | None:
    key = (session_id, mark)
    if key not in _sound:
        if len(_sound) >= SOUND_KEPT:
            _sound.clear()
        _sound[key] = soundness(entries)
    return _sound[key]


def _not_found(conn: Connection, job: Claimed, found: list[Session]) -> list[Try]:
    """The head and the handed-down id, where they are not among this user's sessions of this
    project: `not_of_project`, or `unknown` to the registry."""
    ids = {session.session_id for session in found}
    tries: list[Try] = []
    for given in dict.fromkeys((job.head, job.previous_session_id)):
        if given and given not in ids:
            foreign = registry.get(conn, given) is not None
            if foreign:
                log.warning("session.not_of_project")
            reason = "not_of_project" if foreign else "unknown"
            tries.append(Try(given, "rejected", reason))
    return tries


def _hints(job: Claimed, chosen: Choice, found: list[Session]) -> list[Try]:
    """A handed-down id that is no longer the head: told, and passed over."""
    given = job.previous_session_id
    if not given or given in (job.head, chosen.parent):
        return []
    if given not in {session.session_id for session in found}:
        return []
    return [Try(given, "rejected", "stale_hint")]


def _why(job: Claimed, tries: list[Try]) -> str:
    """Why the head was not taken; without a head, the first of the others."""
    rejected = {t.session_id: t.reason for t in reversed(tries) if t.outcome == "rejected"}
    reason = rejected.get(job.head) or next(iter(reversed(rejected.values())), None)
    return reason or "not_found"
