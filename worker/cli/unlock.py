"""Clearing a stuck lane, as an operator asks for it: `baton project P --unlock`.

Only what is dead is taken: a running job whose lease has run out, or whose process is
gone from this host. One that lives is left, and the answer says what to do about it.
"""

from dataclasses import dataclass
from uuid import UUID

from psycopg import Connection

from config.settings import settings
from db.jobs import limits, listing, rescue
from db.jobs.listing import OpenJob
from worker.process import identity
from worker.process.reaper import reap
from worker.text.units import duration


@dataclass(frozen=True, slots=True)
class Unlocked:
    """What was done, a sentence each; `held` are sentences about what still runs."""

    done: list[str]
    held: list[str]


def unlock(conn: Connection, project_id: str) -> Unlocked:
    """Take the project's jobs from dead workers, and let its parked ones go on."""
    found = listing.open_of(conn, project_id)
    done, held = list[str](), list[str]()
    for job in found:
        if job.state == "running":
            taken = _take(conn, job)
            (done if taken else held).append(taken or _alive(job))
    parked = {job.credential for job in found if job.state == "parked"}
    for credential in sorted(filter(None, parked)):
        released = limits.clear(conn, credential)
        done.append(f"Credential {credential} may be used again: {released} parked jobs go on.")
    return Unlocked(done, held)


def _take(conn: Connection, job: OpenJob) -> str | None:
    """Rescue a running job if its worker is dead; what became of it."""
    attempt: UUID | None = None
    if not job.lease_over:
        if job.boot != identity.boot() or identity.started(job.pid or 0) == job.pid_started:
            return None
        attempt = job.attempt
    if job.boot == identity.boot() and job.attempt:
        reap(job.attempt)  # its agent may have outlived it
    state = rescue.rescue(conn, job.id, attempt=attempt, limit=settings().rescue_limit)
    return state and f"Job {job.id} was taken from its dead worker and is {state} now."


def _alive(job: OpenJob) -> str:
    return (
        f"Job {job.id} is running on {job.host} (process {job.pid}, lease"
        f" {duration(job.lease_left_s)}): wait for it, or `baton cancel {job.id}`."
    )
