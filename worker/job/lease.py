"""Holding a running job: renewed by one thread, trusted only as long as it is certain.

        claim               renew  renew           (no answer)
    ───────●──────────────────●──────●───────────────────┐
           attempt                            trusted until ┤ the keeper ends the agent
                                                lease_until ┤ others may take the job

The holder keeps its own, earlier end, counted from before a renewal was sent, so that
a slow answer cannot stretch it. The same thread hears what is wanted of the holder (a
cancel, a newer request, a drain), watches the clocks of the turn, and ends the agent.
"""

import contextlib
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import psycopg
import psycopg_pool
import structlog

from config.settings import settings
from db.core.pool import connection
from db.jobs import attempts
from db.jobs.attempts import Claimed
from worker.failures.errors import Stopped
from worker.process import crash_points, drain, identity
from worker.process.fence import fenced
from worker.process.reaper import reap
from worker.sandbox.leash import LINGER, Box, Leash

log = structlog.get_logger()

LEAST_WAIT = 0.5  # seconds for a connection; the clocks are to be looked at in between
TIMEOUTS = {"turn_timeout", "idle_timeout"}
MARGIN = 6  # a sixth of the lease lies between our end and the row's: the keeper's time to kill


@dataclass
class Lease:
    """What is known of the hold: `stopped` is the reason to stop, once there is one."""

    job: Claimed
    trusted_until: float
    stopped: str | None = None
    leash: Leash | None = None
    turn_began: float | None = None
    last_sign: float = 0.0
    told_pid: int | None = None
    ending_since: float | None = None
    cut_off: bool = False  # whether Postgres did not answer in time since the last renewal
    renew_at: float = 0.0
    began: float = field(default_factory=identity.now)
    done: threading.Event = field(default_factory=threading.Event)

    def alive(self) -> None:
        """The agent gave a sign of life."""
        self.last_sign = identity.now()

    def silence(self) -> float | None:
        """For how many seconds the agent has given no sign of life; None: no turn runs."""
        return None if self.turn_began is None else identity.now() - self.last_sign

    def left(self) -> float:
        """Seconds for which the hold is still certain."""
        return self.trusted_until - identity.now()

    def stop(self, reason: str) -> None:
        """Stop the turn; the first reason counts."""
        self.stopped = self.stopped or reason

    def check_time(self) -> None:
        """Between two parts of a job, each of which is committed. Raises Stopped when this process has had
        half of what Celery gives it: another attempt goes on, with a process of its own."""
        if identity.now() - self.began > settings().hard_limit.total_seconds() / 2:
            raise Stopped("long_job")

    def excuse(self) -> None:
        """A turn ran into its own limit of time, and is over: another may begin."""
        if self.stopped in TIMEOUTS:
            self.stopped = None

    def reason(self) -> str | None:
        """Why to stop, if so: also when this process was paused, and nobody has looked yet."""
        if self.left() <= 0:
            self.stop("lease_lost")
        return self.stopped

    @contextlib.contextmanager
    def turn(self, box: Box) -> Generator[Leash]:
        """The agent may run inside this block: fed, watched, and gone when it ends."""
        self.leash = Leash(str(self.job.attempt), self.trusted_until, box)
        self.turn_began = self.last_sign = identity.now()
        try:
            yield self.leash
        finally:
            leash, self.leash, self.turn_began = self.leash, None, None
            leash.close()
            # Its keeper was killed, or took too long: then what it kept is looked for.
            if not leash.gone() and (left := reap(self.job.attempt)):
                log.warning("agent.reaped", processes=left)


@contextlib.contextmanager
def hold(
    job: Claimed, *, asked: float, beat: Callable[[float | None], None]
) -> Generator[Lease]:
    """Hold the job for the length of the block. `asked`: when the claim was sent
    (host.now); `beat` is called with each renewal, and told the agent's silence."""
    lease = Lease(job, trusted_until=asked + _trusted())
    thread = threading.Thread(target=_watch, args=(lease, beat), name="lease", daemon=True)
    thread.start()
    try:
        with fenced(lease.left, attempt=job.attempt):
            yield lease
    finally:
        lease.done.set()
        thread.join()


def _trusted() -> float:
    """Seconds after a claim or renewal was sent for which the hold is certain."""
    return settings().lease.total_seconds() * (MARGIN - 1) / MARGIN


def _watch(lease: Lease, beat: Callable[[float | None], None]) -> None:
    _renew_later(lease)
    while not lease.done.wait(settings().cancel_poll.total_seconds()):
        due = identity.now() >= lease.renew_at
        _ask(lease, renew=due)
        if due:
            beat(silence := lease.silence())
            if silence is not None and lease.silence() is None:
                beat(None)  # the turn ended meanwhile, and its end was told before
        _check_clocks(lease)
        _steer(lease)


def _renew_later(lease: Lease) -> None:
    lease.renew_at = identity.now() + settings().renew_every.total_seconds()


def _ask(lease: Lease, *, renew: bool) -> None:
    """One round trip: hear what is wanted, and renew if it is time."""
    if lease.reason() == "lease_lost":
        return  # it was paused, or cut off: what is over does not come back by a late renewal
    asked = identity.now()
    job = lease.job
    try:
        with connection(timeout=max(LEAST_WAIT, lease.left() / 2)) as conn:
            if renew:
                heard = attempts.renew(conn, job.id, job.attempt, settings().lease)
            else:
                heard = attempts.wanted(conn, job.id, job.attempt)
    except (psycopg.Error, psycopg_pool.PoolTimeout) as exc:
        log.warning("lease.not_renewed", error=type(exc).__name__)
        lease.cut_off = True
        return  # `trusted_until` stands where it was, and a renewal is tried again at once
    if lease.left() <= 0:
        lease.cut_off = True  # the answer came too late
    elif renew:
        lease.cut_off = False
    if heard is None:
        if not lease.done.is_set():  # the job may just have been committed
            lease.stop("lease_lost")
        return
    if renew:
        crash_points.reach("lease.renewed")
        lease.trusted_until = asked + _trusted()
        _renew_later(lease)
    if heard != "go on":
        lease.stop({"cancel": "cancelled", "replaced": "replaced_by_request"}[heard])


def _check_clocks(lease: Lease) -> None:
    now = identity.now()
    if now >= lease.trusted_until:
        lease.stop("lease_lost")
    if drain.overdue():
        lease.stop("drained")
    began = lease.turn_began
    if began is None:
        return
    if now - began > settings().turn_timeout.total_seconds():
        lease.stop("turn_timeout")
    if now - lease.last_sign > settings().idle_timeout.total_seconds():
        lease.stop("idle_timeout")


def _end(lease: Lease, leash: Leash) -> None:
    """Ask the keeper to end the agent; do it ourselves if that takes too long, or if the
    time is over for which another attempt cannot have begun."""
    leash.end()
    now = identity.now()
    lease.ending_since = lease.ending_since or now
    if lease.left() <= 0 or now - lease.ending_since > LINGER:
        reap(lease.job.attempt)  # its keeper is gone, or hangs, or is stopped


def _steer(lease: Lease) -> None:
    """Feed the keeper, or end it. Writes down once which process the agent is."""
    leash = lease.leash
    if leash is None:
        if lease.left() <= 0:
            reap(lease.job.attempt)  # a git that is at work: the directory is another's by now
        return
    if lease.stopped:
        _end(lease, leash)
    else:
        leash.feed(lease.trusted_until)
    pid = leash.agent_pid
    if pid and pid != lease.told_pid:
        with contextlib.suppress(psycopg.Error, psycopg_pool.PoolTimeout), connection() as conn:
            attempts.note_agent(conn, lease.job.id, lease.job.attempt, pid)
            lease.told_pid = pid
