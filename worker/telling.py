"""Events that an attempt tells of its own accord; what they mean is in docs/events.md."""

import socket

from db.attempts import Claimed
from db.events import Event
from worker.commit import about
from worker.recovery import Left
from worker.weigh import Weighed

LOST_SESSION = "Previous session not found. Starting fresh session..."  # for people


def resume_failed(job: Claimed, reason: str | None) -> Event:
    """The session is lost, why, and what people may choose."""
    body = {
        **about(job),
        "code": reason,
        "text": LOST_SESSION,
        "choices": ["retry", "start_new"],
    }
    return Event("session.resume_failed", job.id, body)


def recovered(job: Claimed, left: Left, what: str, why: str) -> Event:
    """What a dead attempt left: `finished`, `partial` or `lost` (worker/recovery.py)."""
    body = {**about(job), "what": what, "session": left.begun.minted, "why": why}
    return Event("turn.recovered", job.id, body)


def weighed(job: Claimed, found: Weighed) -> Event:
    """Which way to go on was the cheapest, and what each would have cost."""
    body = {**about(job), "why": found.why, "way": found.way, "costs": found.costs}
    return Event("session.weighed", job.id, body)


def kept_aside(job: Claimed, ref: str) -> Event:
    """What an attempt that came to nothing had left in the workspace."""
    body = {**about(job), "ref": ref, "host": socket.gethostname()}
    return Event("workspace.kept_aside", job.id, body)
