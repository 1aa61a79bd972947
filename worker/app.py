"""The worker as a process, and what beat and Flower begin with: signals, threads, shutdown.

The Celery application itself, which `celery -A worker.app` looks for here, is that of
worker/broker/app.py.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from typing import Any

import psycopg
import structlog
from celery import signals

from config import logging as logs
from config.settings import settings
from db.core import ledger_settings, pool
from db.core.pool import NoDatabase
from db.jobs import messages, workers
from db.jobs.workers import Worker
from worker.agent import the_cli
from worker.agent.version import cli_version, warn_of_another
from worker.broker import (
    consumer,
    flower,
    lost_children,
    pulse,
    remote_control,
    upkeep_queue,
    watchdog,
)
from worker.broker.app import app
from worker.broker.queues import PLAIN, QUEUE
from worker.process import drain, identity, postgres
from worker.process.notes import notes
from worker.process.reaper import reap_of_the_dead
from worker.sandbox import box, own_proxy
from worker.sandbox.keeper import PR_SET_PDEATHSIG, libc
from worker.workspace import repositories
from worker.workspace.git import bound

log = structlog.get_logger()

LAST_NOTES = 5.0  # seconds for what is still to be written when a worker ends

_main = os.getpid()
lost_children.attend(app)
upkeep_queue.attend(app)


@signals.setup_logging.connect
def _log(**_: Any) -> None:
    """Celery sets nothing up itself where somebody answers this."""
    logs.configure()


@signals.import_modules.connect
def _log_in_flower(**_: Any) -> None:
    """Flower gives no sign before its own logging is set up, but this one after."""
    if "flower.command" in sys.modules:
        logs.configure()


@signals.worker_init.connect
def _begin_worker(**_: Any) -> None:
    remote_control.limit()
    consumer.leave_out_celerys(app)


@signals.worker_init.connect
@signals.beat_init.connect
def _begin(**_: Any) -> None:
    logs.configure()


@signals.import_modules.connect
def _look_at_flower(**_: Any) -> None:
    flower.refuse_open()


@signals.beat_init.connect
def _begin_beat(sender: Any = None, **_: Any) -> None:
    pulse.begin(sender, settings().upkeep_every)


@signals.worker_before_create_process.connect
def _share(**_: Any) -> None:
    """What pool children have in common is found out once. What is loaded by then is never
    garbage: no collection looks at it again, so that they share its memory too. (Celery
    collects before each fork: 0.1 s of a core.)"""
    if gc.get_freeze_count() == 0:
        the_cli()
        with contextlib.suppress(OSError):
            box.found()
        bound()
        gc.collect()
        gc.freeze()


@signals.worker_process_init.connect
def _begin_child(**_: Any) -> None:
    """A pool child has connections of its own, and does not outlive the worker: without that
    nobody tells it of a deploy, and its slot is counted by nobody."""
    if os.getpid() != _main:  # it is, with `--pool solo`
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    pool.pool.cache_clear()  # the parent's, if any: not ours to close
    logs.configure()


@signals.worker_ready.connect
def _report(sender: Any = None, **_: Any) -> None:
    """Say in Postgres that this worker is here, until it goes; end it should it go deaf."""
    name = str(getattr(sender, "hostname", None) or f"baton@{socket.gethostname()}")
    slots = int(sender.controller.concurrency)
    threading.Thread(target=_report_for_good, args=(name, slots), daemon=True).start()
    threading.Thread(target=repositories.tend_for_good, daemon=True).start()
    own_proxy.keep()
    watchdog.start((QUEUE, PLAIN), slots)


def _report_for_good(name: str, slots: int) -> None:
    warn_of_another()  # here, since a program that hangs may not hold up Celery's main loop
    box.warn_of_none()
    postgres.tell_at_start()
    told = False
    while not drain.draining():
        try:
            with pool.connect() as conn:
                if not told:
                    ledger_settings.tell(conn)
                    messages.renew(conn)
                    told = True
                workers.report(conn, _myself(name, slots))
                reap_of_the_dead(conn)  # there may be no relay on this host
                messages.cancel_revoked(conn)  # nor any other
        except (NoDatabase, psycopg.Error) as exc:
            log.warning("worker.not_reported", error=str(exc))
        drain.wait(settings().report_every.total_seconds())
    try:
        with pool.connect() as conn:
            workers.leave(conn, name)
    except (NoDatabase, psycopg.Error) as exc:
        log.warning("worker.not_reported", error=str(exc))


def _myself(name: str, slots: int) -> Worker:
    return Worker(
        id=name,
        host=socket.gethostname(),
        pid=os.getpid(),
        slots=slots,
        box=box.told(),
        cli_version=cli_version(),
        credential=identity.credential(),
        worker_id=identity.WORKER_ID,
    )


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    drain.begin()


@signals.worker_shutdown.connect
def _write_the_rest(**_: Any) -> None:
    if not notes().written(LAST_NOTES):
        log.error("notes.lost")
