"""The Celery application: transport only. What is owed lives in the jobs table.

A message with a job id only wakes. No ETA, no countdown, no Celery retry, no results.
"""

import os
import sys
from pathlib import Path

from celery import Celery
from celery.schedules import schedule
from kombu import Exchange, Queue

from config.settings import settings
from config.start import begin_or_exit
from worker.broker import connection, periodic, pulse, upkeep_queue
from worker.broker.queues import PLAIN, QUEUE

# Worker, beat and Flower come in here; a producer that publishes does too, and goes on.
if Path(sys.argv[0].removesuffix("/__main__.py")).name == "celery":
    begin_or_exit(needs_servers=True)

# Celery would let it go before the address below, and the relay counts messages there.
os.environ.pop("CELERY_BROKER_URL", None)
app = Celery(
    "baton",
    amqp="worker.broker.connection:Amqp",
    control="worker.broker.revokes:Control",
    task_cls="worker.broker.consumer:Task",
    include=[
        "tasks.build",
        "tasks.metadata",
        "tasks.compaction",
        "tasks.chat_plan",
        "tasks.upkeep",
    ],
)
app.conf.update(connection.address())
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
    worker_consumer="worker.broker.consumer:Consumer",
    worker_concurrency=settings().slots,
    worker_prefetch_multiplier=1,  # long jobs: take one, do one
    worker_send_task_events=True,
    worker_enable_remote_control=settings().remote_control,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,  # the ledger owns a job
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,  # a Redis that is full refuses writes; that passes
    broker_transport_options={
        "visibility_timeout": int(settings().delivered_again.total_seconds()),
        **connection.LIMITS,
    },
    beat_schedule={
        f"upkeep-{name}": {
            "task": f"{periodic.PREFIX}{name}",
            "schedule": schedule(settings().upkeep_every),
            "options": {"queue": upkeep_queue.UPKEEP},
        }
        for name in periodic.NAMES
    },
    beat_max_loop_interval=pulse.ROUND,
)
