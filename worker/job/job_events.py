"""The events of a job's attempts; what each means is in docs/events.md."""

import socket
from typing import Any

from db.core.events import Event
from db.jobs.attempts import Claimed
from db.jobs.checks import Result
from db.jobs.lanes import MAIN, Next
from db.sessions.commits import Advance
from worker.session.cheapest import Weighed
from worker.session.recovery import Left
from worker.text import file_names
from worker.text.file_names import LeftOut

OUTPUT = 2000  # characters of what a check printed at last
LOST_SESSION = "Previous session not found. Starting fresh session..."  # for people


def about(job: Claimed) -> dict[str, Any]:
    """What every event of a job says: its kind and its chain."""
    return {"kind": job.kind, "chain": str(job.chain_id)}


def queued(job: Claimed, following: Next) -> Event:
    """The event that tells of the chain's next job."""
    body = {"kind": following.kind, "chain": str(job.chain_id)}
    return Event("job.queued", following.id, body)


def committed(
    job: Claimed, to: Advance, following: Next | None, left_out: list[LeftOut]
) -> list[Event]:
    """What a commit tells: the head has moved, what it lacks, the job's end, the next job."""
    branch = {} if job.lane == MAIN else {"branch": job.lane}
    body = {
        **about(job),
        "step": to.step,
        "session": to.new,
        "old": to.old,
        "parent": to.parent,
        "source": to.source,
        "reason": to.reason,
        "version": to.version_id,
        **branch,
    }
    moved = "session.moved" if job.lane == MAIN else "branch.moved"
    told = [Event(moved, job.id, body)]
    if "racer" not in job.args:  # of a race, what has won is told, by the race
        told += [said(job, to, role, text) for role, text in to.chat if role != "user"]
    if left_out:
        lacks = {**about(job), "version": to.version_id, **branch, **file_names.told(left_out)}
        told.append(Event("workspace.left_out", job.id, lacks))
    if to.final:
        told.append(Event("job.done", job.id, {**about(job), "result": to.result}))
    if following:
        told.append(queued(job, following))
    return told


def said(job: Claimed, to: Advance, role: str, text: str) -> Event:
    """An answer. What the user said was told when the job was queued (db/functions/order.sql)."""
    body = {**about(job), "role": role, "text": text, "session": to.new, "step": to.step}
    return Event("chat.said", job.id, body)


def checked(job: Claimed, found: Result) -> Event:
    """What a command of the version's check came to."""
    body = {
        **about(job),
        "version": job.version_id,
        "round": found.round,
        "number": found.number,
        "command": found.command,
        "duration_ms": found.duration_ms,
        "changed": found.changed,
    }
    if found.passed:
        return Event("check.passed", job.id, body)
    output = (found.output_tail or found.output_head)[-OUTPUT:]
    body |= {
        "exit_status": found.exit_status,
        "signal": found.signal,
        "reason": found.reason,
        "output": output,
    }
    return Event("check.failed", job.id, body)


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
    """What a dead attempt left: `finished`, `partial` or `lost` (worker/session/recovery.py)."""
    body = {**about(job), "what": what, "session": left.begun.minted, "why": why}
    return Event("turn.recovered", job.id, body)


def weighed(job: Claimed, found: Weighed) -> Event:
    """Which way to go on was the cheapest, and what each would have cost."""
    weighed = {"why": found.why, "way": found.way, "costs": found.costs, "basis": found.basis}
    body = {**about(job), **weighed}
    return Event("session.weighed", job.id, body)


def kept_aside(job: Claimed, ref: str) -> Event:
    """What an attempt that came to nothing had left in the workspace."""
    body = {**about(job), "ref": ref, "host": socket.gethostname()}
    return Event("workspace.kept_aside", job.id, body)
