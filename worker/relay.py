"""The relay: publish the jobs that are due, and take up those whose worker has died.

    relay: python -m worker.relay        (any number of them)

A message is out for each slot that is free, no more: order, priority and fairness are decided
in Postgres, and a wiped or full Redis loses nothing that is not sent again from here.
"""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import psycopg_pool
import redis
import structlog
from kombu.exceptions import OperationalError
from psycopg import Connection

from config import logging as logs
from config.settings import settings
from config.start import begin_or_exit
from db.core.pool import connection
from db.jobs import jobs, messages, outbox, relays, rescue
from worker.broker import revokes
from worker.broker.bell import Bell
from worker.broker.connection import fitness
from worker.broker.lost_messages import Strays
from worker.broker.publish import copy, send
from worker.broker.queues import QUEUE
from worker.job.successors import despite_failure
from worker.live.checkpoints import BROKER, client
from worker.process import crash_points, identity, postgres
from worker.process.reaper import reap
from worker.webhooks import sender

log = structlog.get_logger()

UNKNOWN = 4  # messages out while no worker was heard of: one that comes finds work
RECALL_AFTER = timedelta(seconds=2)  # an empty queue says a message is lost
NO_LIMIT = 2**31 - 1  # rescues
LOOKS = 10  # of some hundred jobs each, before what is ready goes out: a flood delays nobody's message
TEND_EVERY = 1.0  # seconds between two looks for the dead, and for credentials that work again
# Seconds between two looks for plain messages that were lost with a worker, and for revokes of long ago.
STRAYS_EVERY = 30.0
# Who asks once asks again: for some seconds after work it looks sooner than BATON_RELAY_POLL says,
# while a slot is free.
SOONER, FOR = 0.01, 2.0  # seconds
PAUSE = 1.0  # seconds, when Postgres or Redis is away
RELAY_ID = f"{identity.boot()}/{os.getpid()}"
SERVICES_AWAY = (
    psycopg.Error,
    psycopg_pool.PoolTimeout,
    redis.RedisError,
    OperationalError,
    OSError,
)


def run_once() -> int:
    """Look at what is due and publish what there is room for; says how many messages went out.

    Raises what Postgres or Redis raise when they are away. A crash in between publishes twice,
    which is harmless.
    """
    return look_once().sent


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look came to. `full`: no slot is free, and who frees one rings. `more`: there is more to look
    at, at once."""

    sent: int = 0
    full: bool = False
    more: bool = False


def look_once() -> Looked:
    """See run_once. Only what is owed is asked about: a look that finds nothing is one statement."""
    with connection() as conn:
        owed = outbox.owes(conn, older_than=RECALL_AFTER)
        if owed.tell:
            outbox.tell_ends(conn)
        more = owed.look and _look(conn)
        if not (owed.ready or owed.look or owed.lost):
            return Looked()
        has = outbox.room(conn, silent_after=settings().worker_silent_after)
    if _room(has, 0) <= 0 and not owed.lost:
        return Looked(full=True, more=more)
    return replace(_publish(has, lost=owed.lost), more=more)


def _publish(has: outbox.Room, *, lost: bool) -> Looked:
    waiting: Any = client(BROKER).llen(QUEUE)
    room = _room(has, int(waiting))
    if room <= 0 and waiting:
        return Looked(full=True)
    with connection() as conn:
        if lost and waiting == 0 and outbox.recall(conn, older_than=RECALL_AFTER):
            _look(conn)
        due = outbox.publish(
            conn,
            room=room,
            user_slots=settings().user_slots,
            pause=settings().publish_after,
            longest=settings().publish_again_max,
        )
    if due:
        crash_points.reach("relay.taken")
    sent = send(due, answered=True)
    if due:
        crash_points.reach("relay.sent")
    return Looked(sent, full=sent >= room)


def _room(has: outbox.Room, waiting: int) -> int:
    """How many messages may go out: one for each slot that is free, so that nobody who comes
    waits behind messages of others. `waiting`: messages in the queue."""
    if not has.workers:
        return UNKNOWN - waiting
    return has.slots - has.busy - max(waiting, has.out)


def _look(conn: Connection) -> bool:
    """Look at what is due, a few times; whether there may be more. What was told is copied for watchers."""
    for _ in range(LOOKS):
        if not (told := outbox.look(conn)):
            return False
        for project_id, written in told:
            copy(project_id, [written])
    return True


def tend_once(*, after_outage: bool = False) -> int:
    """What is to be seen to each second: this relay's own sign of life, jobs of dead workers,
    and parked jobs that a worker's credential could run. Says how many went back to the queue."""
    with connection() as conn:
        relays.report(
            conn,
            relay_id=RELAY_ID,
            host=socket.gethostname(),
            boot=identity.boot(),
            pid=os.getpid(),
        )
        adopted = outbox.adopt(conn, silent_after=settings().worker_silent_after)
    return adopted + rescue_once(after_outage=after_outage)


def rescue_once(*, after_outage: bool = False) -> int:
    """Take the jobs of dead workers back into the queue, and say how many.

    A worker of this host is known to be dead as soon as its process is; of another
    host, when its lease has run out. `after_outage`: Postgres was away just now, so a lease
    that has run out may be a living worker's, which is about to say so (worker/job/endings.py):
    no job is set aside for it.
    """
    taken, limit = 0, settings().rescue_limit
    with connection() as conn:
        here = dict[UUID, UUID]()
        for job_id, attempt, pid, born in rescue.running_on(conn, identity.boot()):
            if identity.started(pid) == born:
                here[job_id] = attempt
                continue
            if reap(attempt):
                continue  # something of it still lived, and was killed: look again
            taken += _take(conn, job_id, attempt, limit)
        for job_id in rescue.expired(conn):
            if job_id in here and reap(here[job_id]):
                continue  # its worker is stopped, and so was what should have killed this
            taken += _take(conn, job_id, None, NO_LIMIT if after_outage else limit)
    return taken


def cancel_revoked() -> int:
    """Cancel what was revoked, also while no worker is online; returns how many jobs."""
    with connection() as conn:
        return messages.cancel_revoked(conn)


def renew_revoked() -> int:
    """Take up what was revoked over an hour ago and is still there; returns how many were cancelled."""
    with connection() as conn:
        return messages.cancel_revoked(conn) if messages.renew(conn) else 0


def _take(conn: Connection, job_id: UUID, attempt: UUID | None, limit: int) -> int:
    with conn.transaction():
        state = rescue.rescue(conn, job_id, attempt=attempt, limit=limit)
        job = jobs.get(conn, job_id) if state == "quarantined" else None
        if job and (following := despite_failure(job)):
            rescue.follow(conn, job_id, following)
    if state is None:
        return 0
    crash_points.reach("rescue.taken")
    log.warning("job.rescued", job=str(job_id), state=state)
    return 1


def _patiently(work: Callable[[], object], ended: threading.Event) -> bool:
    """Do it, or pause if that is not possible now. Whether Postgres answered."""
    try:
        work()
    except SERVICES_AWAY as exc:
        log.warning("relay.waits", error=type(exc).__name__)
        ended.wait(PAUSE)
        return not isinstance(exc, (psycopg.Error, psycopg_pool.PoolTimeout))
    return True


def _look_at_redis() -> None:
    """Say at the start what `baton doctor` would: a Redis that evicts loses messages."""
    try:
        memory: Any = client(BROKER).info("memory")
    except redis.RedisError:
        return  # it is away: the loop says so
    state, told = fitness(memory)
    if state != "ok":
        log.warning("redis.unfit", error=told)


def main() -> None:
    begin_or_exit(needs_servers=True)
    logs.configure()
    ended = threading.Event()

    def end(_number: int, _frame: object) -> None:
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    log.info("relay.ready")
    _look_at_redis()
    postgres.tell_at_start()
    threading.Thread(target=sender.send_for_good, args=(ended,), daemon=True).start()
    if settings().remote_control:
        threading.Thread(target=revokes.listen_for_good, args=(ended,), daemon=True).start()
    _loop(ended)


def _loop(ended: threading.Event) -> None:
    looked = looked_for_strays = 0.0
    away, strays, bell = float("-inf"), Strays(), Bell()
    busy_until, last, pace = 0.0, Looked(), settings().relay_poll.total_seconds()

    def look() -> None:
        nonlocal busy_until, last
        last = look_once()
        if last.sent:
            busy_until = time.monotonic() + FOR

    while not ended.is_set():
        answered = True
        if time.monotonic() - looked >= TEND_EVERY:  # Redis may be away: the dead are found
            looked = time.monotonic()
            shortly = looked - away < settings().lease.total_seconds()
            answered = _patiently(partial(tend_once, after_outage=shortly), ended)
            _patiently(cancel_revoked, ended)
        if time.monotonic() - looked_for_strays >= STRAYS_EVERY:
            looked_for_strays = time.monotonic()
            _patiently(renew_revoked, ended)
            _patiently(strays.put_back, ended)
        if not (_patiently(look, ended) and answered):
            away = time.monotonic()
        soon = time.monotonic() < busy_until and not last.full
        bell.wait(0 if last.more else min(pace, SOONER) if soon else pace, ended)
    with contextlib.suppress(*SERVICES_AWAY), connection() as conn:
        relays.leave(conn, RELAY_ID)


if __name__ == "__main__":
    main()
