"""Which session to resume: the head, else the next best that is sound, else none.

    head → handed-down id → the version's → older heads → fresh, the past retold

Each candidate is checked before anything is spawned: whose it is (in SQL), whether it
may be resumed, how old it is, and whether all of it lies in the store. Every one that
was looked at is recorded, with the reason, before the prompt is sent.
"""

import hashlib
from dataclasses import dataclass

from psycopg import Connection

from config.settings import settings
from db import sessions, transcripts
from db.attempts import Claimed
from db.sessions import Session
from db.transcript_form import Entry
from db.transcripts import TranscriptDamaged
from db.turns import Try


@dataclass(frozen=True, slots=True)
class Choice:
    """The session to fork (None: begin fresh), why, and all that was looked at.

    `reason` is None on a resumed head and on a first session; otherwise why the head
    was not resumed. `entries` is the parent's transcript, read and found sound.
    """

    parent: str | None
    entries: list[Entry]
    tries: list[Try]
    reason: str | None
    source: str | None = None  # fallback or reset, when the head was passed over

    @property
    def lost_head(self) -> bool:
        """Whether a head was there and a fresh session has to begin all the same."""
        return self.parent is None and self.reason is not None


def choose(conn: Connection, job: Claimed, *, barred: dict[str, str]) -> Choice:
    """Climb the ladder. `barred` are sessions that this attempt has tried, with the reason."""
    if job.head is None and job.previous_session_id is None:
        return Choice(None, [], [Try(None, "trying", "first")], None)
    if reason := _policy(conn, job):
        return Choice(
            None, [], [Try(None, "trying", reason)], reason if job.head else None, "reset"
        )
    found = sessions.candidates(conn, job, user_id=job.user_id, handed=job.previous_session_id)
    tries = _unknown(job, found)
    for session in found:
        reason = barred.get(session.session_id) or _unfit(conn, session)
        entries: list[Entry] = []
        if reason is None:
            entries, reason = _load(conn, job, session)
        if reason is None:
            tries.append(Try(session.session_id, "trying"))
            passed = None if session.session_id == job.head else _first_reason(tries)
            tries += _hints(job, session, found)
            return Choice(session.session_id, entries, tries, passed)
        tries.append(Try(session.session_id, "rejected", reason))
    why = _first_reason(tries)
    tries.append(Try(None, "trying", why))
    return Choice(None, [], tries, why if job.head else None, "fallback" if job.head else None)


def in_rollout(project_id: str) -> bool:
    """Whether the project is among the percentage that resumes: the same answer everywhere."""
    place = int(hashlib.sha256(project_id.encode()).hexdigest()[:8], 16) % 100
    return place < settings().resume_percent


def _policy(conn: Connection, job: Claimed) -> str | None:
    """Why the turn is to begin fresh although a session may be there."""
    if not settings().resume_enabled:
        return "resume_off"
    if not in_rollout(job.project_id):
        return "control"
    if job.fresh_next or job.args.get("fresh"):
        return "asked_fresh"
    if job.kind == "build" and job.head and _turns(conn, job) >= settings().reset_after_turns:
        return "reset"
    return None


def _turns(conn: Connection, job: Claimed) -> int:
    row = conn.execute(
        "select turns_since_start from project_ai_session_metrics where session_id = %s",
        (job.head,),
    ).fetchone()
    return row[0] if row else 0


def _unfit(conn: Connection, session: Session) -> str | None:
    if not session.is_resumable:
        return "not_resumable"
    if session.age > settings().stale_after:
        sessions.mark_stale(conn, [session.session_id])
        return "stale"
    return None


def _load(conn: Connection, job: Claimed, session: Session) -> tuple[list[Entry], str | None]:
    """The transcript, and why it is of no use. A damaged one is condemned for good."""
    mark = transcripts.fingerprint(conn, job.project_id, session.session_id)
    if mark is None:
        return [], "not_found"
    try:
        entries = transcripts.load(conn, job.project_id, session.session_id)
    except TranscriptDamaged:
        sessions.condemn(conn, session.session_id)
        return [], "damaged"
    if entries is None:
        return [], "not_found"
    reason = _soundness(mark, entries)
    if reason:
        sessions.condemn(conn, session.session_id)
    return entries, reason


def look(conn: Connection, project_id: str, session_id: str) -> tuple[str | None, str | None]:
    """Whether a new session is whole in the store (None, else why not), and its compact summary."""
    mark = transcripts.fingerprint(conn, project_id, session_id)
    if mark is None:
        return "not_found", None
    try:
        entries = transcripts.load(conn, project_id, session_id)
    except TranscriptDamaged:
        return "damaged", None
    if entries is None:
        return "not_found", None
    return _soundness(mark, entries), _summary(entries)


def _summary(entries: list[Entry]) -> str | None:
    """The text that the newest compaction put in the place of what was before it."""
    for entry in reversed(entries):
        if entry.get("isCompactSummary"):
            content: str | list[dict[str, str]] = entry["message"]["content"]
            if isinstance(content, str):
                return content
            return "\n".join(block.get("text", "") for block in content) or None
    return None


_sound: dict[str, str | None] = {}  # fingerprint → soundness: it cannot have changed
SOUND_KEPT = 1000


def _soundness(mark: str, entries: list[Entry]) -> str | None:
    if mark not in _sound:
        if len(_sound) >= SOUND_KEPT:
            _sound.clear()
        _sound[mark] = transcripts.soundness(entries)
    return _sound[mark]


def _unknown(job: Claimed, found: list[Session]) -> list[Try]:
    """The head and the handed-down id, when the registry does not have them as this user's."""
    ids = {session.session_id for session in found}
    return [
        Try(given, "rejected", "not_of_project")
        for given in dict.fromkeys((job.head, job.previous_session_id))
        if given and given not in ids
    ]


def _hints(job: Claimed, chosen: Session, found: list[Session]) -> list[Try]:
    """A handed-down id that is no longer the head: told, and passed over."""
    given = job.previous_session_id
    if not given or given in (job.head, chosen.session_id):
        return []
    if given not in {session.session_id for session in found}:
        return []
    return [Try(given, "rejected", "stale_hint")]


def _first_reason(tries: list[Try]) -> str:
    """Why the best candidate was not taken."""
    return next((t.reason for t in tries if t.outcome == "rejected" and t.reason), "not_found")
