"""The Celery application: transport only. What is owed lives in the jobs table.

A message with a job id only wakes. No ETA, no countdown, no Celery retry, no results.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import structlog
from celery import Celery, signals
from celery.schedules import schedule
from kombu import Exchange, Queue

from config import logging as logs
from config.settings import settings
from config.start import begin_or_exit
from db import ledger_settings, messages, pool, workers
from db.pool import NoDatabase
from db.workers import Worker
from worker import (
    aside,
    broker,
    drain,
    flower,
    host,
    losses,
    periodic,
    postgres,
    pulse,
    repositories,
    watchdog,
)
from worker import (
    revoking as revoking,  # it has commands that workers obey
)
from worker.agent import box, the_cli
from worker.agent.keeper import PR_SET_PDEATHSIG, libc
from worker.agent.version import cli_version, warn_of_another
from worker.git import bound
from worker.notes import notes
from worker.orphans import reap_of_the_dead
from worker.publish import PLAIN, QUEUE

log = structlog.get_logger()

LAST_NOTES = 5.0  # seconds for what is still to be written when a worker ends

# Worker, beat and Flower come in here; a producer that publishes does too, and goes on.
if Path(sys.argv[0].removesuffix("/__main__.py")).name == "celery":
    begin_or_exit(needs_servers=True)

# Celery would let it go before the address below, and the relay counts messages there.
os.environ.pop("CELERY_BROKER_URL", None)
_main = os.getpid()
app = Celery(
    "baton",
    amqp="worker.broker:Amqp",
    control="worker.revoking:Control",
    task_cls="worker.taking:Task",
    include=[
        "tasks.build",
        "tasks.metadata",
        "tasks.compaction",
        "tasks.chat_plan",
        "tasks.upkeep",
    ],
)
app.conf.update(broker.address())
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_default_queue=PLAIN,
    task_queues=[Queue(n, Exchange(n), routing_key=n) for n in (QUEUE, PLAIN)],
    task_acks_late=True,  # a killed worker's message is delivered again
    task_reject_on_worker_lost=True,
    task_acks_on_failure_or_timeout=False,
    task_ignore_result=True,  # results are rows, not Celery results
    task_store_errors_even_if_ignored=False,
    task_send_sent_event=False,
    task_time_limit=int(settings().hard_limit.total_seconds()),
    worker_consumer="worker.taking:Consumer",
    worker_concurrency=settings().slots,
    worker_prefetch_multiplier=1,  # long jobs: take one, do one
    worker_send_task_events=True,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,  # the ledger owns a job
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,  # a Redis that is full refuses writes; that passes
    broker_transport_options={
        "visibility_timeout": int(settings().delivered_again.total_seconds()),
        **broker.LIMITS,
    },
    beat_schedule={
        f"upkeep-{name}": {
            "task": f"{periodic.PREFIX}{name}",
            "schedule": schedule(settings().upkeep_every),
            "options": {"queue": aside.UPKEEP},
        }
        for name in periodic.NAMES
    },
    beat_max_loop_interval=pulse.ROUND,
)
losses.attend(app)
aside.attend(app)


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
        credential=host.credential(),
        worker_id=host.WORKER_ID,
    )


@signals.worker_shutting_down.connect
def _drain(**_: Any) -> None:
    drain.begin()


@signals.worker_shutdown.connect
def _write_the_rest(**_: Any) -> None:
    if not notes().written(LAST_NOTES):
        log.error("notes.lost")
